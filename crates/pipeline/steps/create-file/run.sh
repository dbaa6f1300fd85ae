# shellcheck shell=sh
# Writes a file.
(
  set -eu
  file=${WERCKER_CREATE_FILE_FILENAME:-}
  [ -n "$file" ] || fail 'create-file: name the file in the property "filename"'
  if [ -e "$file" ] && [ "${WERCKER_CREATE_FILE_OVERWRITE:-false}" != true ]; then
    fail "create-file: $file is there already; \"overwrite: true\" replaces it"
  fi
  case $file in */*) mkdir -p "${file%/*}" ;; esac
  # Lines arrive joined by a backslash and an n.
  printf '%s\n' "${WERCKER_CREATE_FILE_CONTENT:-}" | awk '{ gsub(/\\n/, "\n"); print }' >"$file"
  info "create-file: wrote $file"
  if [ "${WERCKER_CREATE_FILE_HIDE_FROM_LOG:-false}" != true ]; then cat "$file"; fi
)
