# shellcheck shell=sh
# Adds a file to a release on GitHub, and exports its number. The token is in no argument and in no message.
(
  set -eu
  umask 077
  step=github-upload-asset
  token=${WERCKER_GITHUB_UPLOAD_ASSET_TOKEN:-}
  file=${WERCKER_GITHUB_UPLOAD_ASSET_FILE:-}
  release=${WERCKER_GITHUB_UPLOAD_ASSET_RELEASE_ID:-${WERCKER_GITHUB_CREATE_RELEASE_ID:-}}
  owner=${WERCKER_GITHUB_UPLOAD_ASSET_OWNER:-${WERCKER_GIT_OWNER:-}}
  repo=${WERCKER_GITHUB_UPLOAD_ASSET_REPO:-${WERCKER_GIT_REPOSITORY:-}}
  name=${WERCKER_GITHUB_UPLOAD_ASSET_FILENAME:-${file##*/}}
  type=${WERCKER_GITHUB_UPLOAD_ASSET_CONTENT_TYPE:-}
  [ -n "$token" ] || fail "$step: the property \"token\" is missing"
  [ -n "$file" ] || fail "$step: the property \"file\" is missing"
  [ -f "$file" ] || fail "$step: there is no file $file"
  [ -n "$release" ] || fail "$step: name the release in the property \"release_id\", or make one with github-create-release before"
  [ -n "$owner" ] || fail "$step: name whose repository it is in the property \"owner\""
  [ -n "$repo" ] || fail "$step: name the repository in the property \"repo\""
  case ${WERCKER_GITHUB_UPLOAD_ASSET_EXPORT_ID:-x} in
    [!A-Za-z_]* | *[!A-Za-z0-9_]*) fail "$step: $WERCKER_GITHUB_UPLOAD_ASSET_EXPORT_ID is no name of a variable" ;;
  esac
  command -v curl >/dev/null 2>&1 || fail "$step: the box has no curl: install the package curl before"
  if [ -z "$type" ] && command -v file >/dev/null 2>&1; then type=$(file -b --mime-type "$file"); fi
  type=${type:-application/octet-stream}
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT

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
  quoted() { printf '%s' "$1" | sed 's/[\\"]/\\&/g'; }

  # Every byte as its number, so that no character of a name means anything in the address.
  encoded=$(printf '%s' "$name" | od -An -v -tx1 | tr -d ' \n' | sed 's/../%&/g')
  api=${WERCKER_GITHUB_UPLOAD_ASSET_API_URL:-https://api.github.com}
  # GitHub takes files at another address than all else.
  case ${WERCKER_GITHUB_UPLOAD_ASSET_UPLOAD_URL:-} in
    ?*) uploads=$WERCKER_GITHUB_UPLOAD_ASSET_UPLOAD_URL ;;
    *) case $api in
      https://api.github.com) uploads=https://uploads.github.com ;;
      */api/v3) uploads=${api%/v3}/uploads ;;
      *) uploads=$api ;;
    esac ;;
  esac
  printf 'header = "Content-Type: %s"\nupload-file = "%s"\n' "$(quoted "$type")" "$(quoted "$file")" >"$dir/more"
  call "$uploads/repos/$owner/$repo/releases/$release/assets?name=$encoded"
  id=$(id_of "$dir/answer")
  [ -n "$id" ] || fail "$step: GitHub's answer has no number of the file"
  printf '%s\n' "$id" >"$WERCKER_STEP_ROOT/id"
  info "$step: added $name to release $release ($id)"
)
case $? in
  0)
    WERCKER_GITHUB_UPLOAD_ASSET_ID=$(cat "$WERCKER_STEP_ROOT/id")
    export WERCKER_GITHUB_UPLOAD_ASSET_ID
    case ${WERCKER_GITHUB_UPLOAD_ASSET_EXPORT_ID:-} in
      '') ;;
      *) eval "export $WERCKER_GITHUB_UPLOAD_ASSET_EXPORT_ID=$WERCKER_GITHUB_UPLOAD_ASSET_ID" ;;
    esac
    ;;
  *) return 1 ;;
esac
