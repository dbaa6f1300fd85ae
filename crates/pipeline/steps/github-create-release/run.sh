# shellcheck shell=sh
# Makes a release on GitHub, and exports its number. The token is in no argument and in no message.
(
  set -eu
  umask 077
  step=github-create-release
  token=${WERCKER_GITHUB_CREATE_RELEASE_TOKEN:-}
  tag=${WERCKER_GITHUB_CREATE_RELEASE_TAG:-}
  owner=${WERCKER_GITHUB_CREATE_RELEASE_OWNER:-${WERCKER_GIT_OWNER:-}}
  repo=${WERCKER_GITHUB_CREATE_RELEASE_REPO:-${WERCKER_GIT_REPOSITORY:-}}
  [ -n "$token" ] || fail "$step: the property \"token\" is missing"
  [ -n "$tag" ] || fail "$step: the property \"tag\" is missing"
  [ -n "$owner" ] || fail "$step: name whose repository it is in the property \"owner\""
  [ -n "$repo" ] || fail "$step: name the repository in the property \"repo\""
  case ${WERCKER_GITHUB_CREATE_RELEASE_EXPORT_ID:-x} in
    [!A-Za-z_]* | *[!A-Za-z0-9_]*) fail "$step: $WERCKER_GITHUB_CREATE_RELEASE_EXPORT_ID is no name of a variable" ;;
  esac
  command -v curl >/dev/null 2>&1 || fail "$step: the box has no curl: install the package curl before"
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT

  # A text as a string of JSON, from standard input. Lines that arrived joined by a backslash and an n are lines again.
  json() {
    awk '
      BEGIN {
        for (i = 1; i < 32; i++) code[sprintf("%c", i)] = sprintf("\\u%04x", i)
        code["\""] = "\\\""
        code["\\"] = "\\\\"
      }
      {
        gsub(/\\n/, "\n")
        if (NR > 1) out = out "\\n"
        for (i = 1; i <= length($0); i++) {
          c = substr($0, i, 1)
          out = out (c in code ? code[c] : c)
        }
      }
      END { printf "\"%s\"", out }
    '
  }
  entry() { printf '"%s": %s' "$1" "$(printf '%s\n' "$2" | json)"; }
  # The value of "id" in the outermost object of an answer.
  id_of() {
    awk '
      { text = text $0 " " }
      END {
        for (i = 1; i <= length(text); i++) {
          c = substr(text, i, 1)
          if (inside) {
            if (c == "\\") { i++; word = word "?" }
            else if (c == "\"") inside = 0
            else word = word c
            continue
          }
          if (c == "\"") { inside = 1; word = "" }
          else if (c == "{" || c == "[") depth++
          else if (c == "}" || c == "]") depth--
          else if (c == ":" && depth == 1 && word == "id") {
            rest = substr(text, i + 1)
            if (match(rest, /[0-9]+/)) print substr(rest, RSTART, RLENGTH)
            exit
          }
        }
      }
    ' "$1"
  }
  # call ADDRESS: sends what "$dir/curl" says besides the address and the token; the answer is in "$dir/answer".
  call() {
    {
      printf 'url = "%s"\n' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"
      printf 'header = "Authorization: token %s"\n' "$(printf '%s' "$token" | sed 's/[\\"]/\\&/g')"
      printf 'header = "Accept: application/vnd.github.v3+json"\nuser-agent = "sealift"\n'
      printf 'silent\nshow-error\nconnect-timeout = 10\nmax-time = 900\nrequest = "POST"\n'
      printf 'output = "%s/answer"\nwrite-out = "%%{http_code}"\n' "$dir"
      cat "$dir/more"
    } >"$dir/curl"
    : >"$dir/answer"
    code=0
    status=$(curl --config "$dir/curl") || code=$?
    [ $code = 0 ] || fail "$step: GitHub cannot be reached (curl ended with code $code)"
    case $status in
      2??) ;;
      401) fail "$step: GitHub does not take the token" ;;
      *)
        head -c 2000 "$dir/answer" >&2
        fail "$step: GitHub answered with status $status"
        ;;
    esac
  }

  {
    printf '{'
    entry tag_name "$tag"
    printf ', '
    entry name "${WERCKER_GITHUB_CREATE_RELEASE_TITLE:-$tag}"
    printf ', '
    entry body "${WERCKER_GITHUB_CREATE_RELEASE_BODY:-}"
    commit=${WERCKER_GITHUB_CREATE_RELEASE_TARGET_COMMITISH:-${WERCKER_GIT_COMMIT:-}}
    if [ -n "$commit" ]; then printf ', ' && entry target_commitish "$commit"; fi
    if [ "${WERCKER_GITHUB_CREATE_RELEASE_DRAFT:-false}" = true ]; then printf ', "draft": true'; fi
    if [ "${WERCKER_GITHUB_CREATE_RELEASE_PRERELEASE:-false}" = true ]; then printf ', "prerelease": true'; fi
    printf '}\n'
  } >"$dir/body"
  printf 'header = "Content-Type: application/json"\ndata-binary = "@%s/body"\n' "$dir" >"$dir/more"
  call "${WERCKER_GITHUB_CREATE_RELEASE_API_URL:-https://api.github.com}/repos/$owner/$repo/releases"
  id=$(id_of "$dir/answer")
  [ -n "$id" ] || fail "$step: GitHub's answer has no number of the release"
  printf '%s\n' "$id" >"$WERCKER_STEP_ROOT/id"
  info "$step: made release $tag ($id)"
)
case $? in
  0)
    WERCKER_GITHUB_CREATE_RELEASE_ID=$(cat "$WERCKER_STEP_ROOT/id")
    export WERCKER_GITHUB_CREATE_RELEASE_ID
    case ${WERCKER_GITHUB_CREATE_RELEASE_EXPORT_ID:-} in
      '') ;;
      *) eval "export $WERCKER_GITHUB_CREATE_RELEASE_EXPORT_ID=$WERCKER_GITHUB_CREATE_RELEASE_ID" ;;
    esac
    ;;
  *) return 1 ;;
esac
