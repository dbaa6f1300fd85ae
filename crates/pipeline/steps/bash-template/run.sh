# shellcheck shell=sh
# Fills variables into templates, as the shell does in a here-document.
(
  set -eu
  fill() {
    [ -f "$1" ] || fail "bash-template: there is no $1 in $PWD"
    if [ "${WERCKER_BASH_TEMPLATE_ERROR_ON_EMPTY:-}" != true ]; then set +u; fi
    # Not set off by the shell's own lines: the text ends where this word stands alone.
    text=$(cat "$1")
    eval "cat <<SEALIFT_END_OF_TEMPLATE
$text
SEALIFT_END_OF_TEMPLATE" >"$2.filling" || {
      rm -f "$2.filling"
      fail "bash-template: cannot fill $1"
    }
    set -u
    # The mode of the template: a script stays one.
    if [ -x "$1" ]; then chmod +x "$2.filling"; fi
    mv "$2.filling" "$2"
    info "bash-template: $1 became $2"
  }
  input=${WERCKER_BASH_TEMPLATE_INPUT:-}
  output=${WERCKER_BASH_TEMPLATE_OUTPUT:-}
  if [ -n "$input" ]; then
    case $output$input in
      *.template) output=${output:-${input%.template}} ;;
    esac
    [ -n "$output" ] || fail "bash-template: name the file to write in the property \"output\""
    fill "$input" "$output"
  else
    [ -z "$output" ] || fail 'bash-template: "output" goes with "input"'
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    find . -name '*.template' -type f >"$dir/list"
    [ -s "$dir/list" ] || fail "bash-template: there is no file *.template below $PWD"
    while IFS= read -r file; do fill "$file" "${file%.template}"; done <"$dir/list"
  fi
)
