# shellcheck shell=sh
# Runs shellcheck over the files that are named.
(
  set -eu
  command -v shellcheck >/dev/null 2>&1 || fail 'shellcheck: the box has no shellcheck: install the package of that name'
  # Patterns are filled in after the words are told apart.
  separator=${WERCKER_SHELLCHECK_SEPARATOR:- }
  files=${WERCKER_SHELLCHECK_FILES:-*.sh}
  set --
  IFS=$separator
  for file in $files; do
    if [ ! -f "$file" ]; then
      case $file in
        '') continue ;;
        *) fail "shellcheck: there is no $file in $PWD" ;;
      esac
    fi
    set -- "$@" "$file"
  done
  unset IFS
  [ $# -gt 0 ] || fail "shellcheck: there is nothing to check in $PWD"
  set -- -- "$@"
  if [ -n "${WERCKER_SHELLCHECK_EXCLUDE:-}" ]; then set -- "--exclude=$WERCKER_SHELLCHECK_EXCLUDE" "$@"; fi
  if [ -n "${WERCKER_SHELLCHECK_FORMAT:-}" ]; then set -- "--format=$WERCKER_SHELLCHECK_FORMAT" "$@"; fi
  if [ -n "${WERCKER_SHELLCHECK_SHELL:-}" ]; then set -- "--shell=$WERCKER_SHELLCHECK_SHELL" "$@"; fi
  shellcheck "$@" || fail "shellcheck: there are findings (code $?)"
)
