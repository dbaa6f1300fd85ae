# shellcheck shell=sh
# Tells a Slack channel how the run went. The webhook's address is a secret: it is in no argument and in no message.
(
  set -eu
  umask 077
  url=${WERCKER_SLACK_NOTIFIER_URL:-}
  [ -n "$url" ] || fail 'slack-notifier: give the address of the webhook in the property "url"'
  case $url in http://* | https://*) ;; *) fail 'slack-notifier: what is in the property "url" is no address' ;; esac
  # In a step that is none of the after-steps, nothing has failed yet.
  result=${WERCKER_RESULT:-passed}
  branch=${WERCKER_GIT_BRANCH:-}
  case ${WERCKER_SLACK_NOTIFIER_NOTIFY_ON:-} in
    '' | "$result") ;;
    *)
      info "slack-notifier: the run has $result, only $WERCKER_SLACK_NOTIFIER_NOTIFY_ON runs are told of"
      exit 0
      ;;
  esac
  case ${WERCKER_SLACK_NOTIFIER_BRANCH:-} in
    '' | "$branch") ;;
    *)
      info "slack-notifier: the branch is $branch, only $WERCKER_SLACK_NOTIFIER_BRANCH is told of"
      exit 0
      ;;
  esac

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

  if [ "${DEPLOY:-false}" = true ]; then kind=deploy; else kind=build; fi
  commit=$(printf '%.7s' "${WERCKER_GIT_COMMIT:-}")
  what="$kind of ${WERCKER_APPLICATION_NAME:-the project}"
  if [ -n "$branch$commit" ]; then what="$what ($branch${branch:+ }$commit)"; fi
  text="$what has $result"
  if [ -n "${WERCKER_STARTED_BY:-}" ]; then text="$text, started by $WERCKER_STARTED_BY"; fi
  if [ "$result" = failed ] && [ -n "${WERCKER_FAILED_STEP_DISPLAY_NAME:-}" ]; then
    text="$text: step $WERCKER_FAILED_STEP_DISPLAY_NAME: ${WERCKER_FAILED_STEP_MESSAGE:-}"
  fi
  if [ -n "${WERCKER_RUN_URL:-}" ]; then text="$text
$WERCKER_RUN_URL"; fi
  if [ "$result" = passed ]; then color=good; else color=danger; fi

  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
  {
    printf '{'
    case ${WERCKER_SLACK_NOTIFIER_CHANNEL:-} in
      '') ;;
      '#'* | @*) entry channel "$WERCKER_SLACK_NOTIFIER_CHANNEL" && printf ', ' ;;
      *) entry channel "#$WERCKER_SLACK_NOTIFIER_CHANNEL" && printf ', ' ;;
    esac
    if [ -n "${WERCKER_SLACK_NOTIFIER_USERNAME:-}" ]; then entry username "$WERCKER_SLACK_NOTIFIER_USERNAME" && printf ', '; fi
    if [ -n "${WERCKER_SLACK_NOTIFIER_ICON_URL:-}" ]; then entry icon_url "$WERCKER_SLACK_NOTIFIER_ICON_URL" && printf ', '; fi
    printf '"attachments": [{'
    entry fallback "$text"
    printf ', '
    entry text "$text"
    printf ', "color": "%s"}]}\n' "$color"
  } >"$dir/payload"

  code=0
  if command -v curl >/dev/null 2>&1; then
    {
      printf 'url = "%s"\n' "$(printf '%s' "$url" | sed 's/[\\"]/\\&/g')"
      printf 'header = "Content-Type: application/json"\ndata-binary = "@%s/payload"\n' "$dir"
      printf 'silent\nfail\noutput = "/dev/null"\nconnect-timeout = 10\nmax-time = 60\nretry = 3\n'
    } >"$dir/curl"
    curl --config "$dir/curl" || code=$?
  elif command -v wget >/dev/null 2>&1 && wget --help 2>&1 | grep -q -e --input-file; then
    printf '%s\n' "$url" >"$dir/url"
    wget --quiet --tries=3 --timeout=20 --header='Content-Type: application/json' --post-file="$dir/payload" \
      --output-document=/dev/null --input-file="$dir/url" || code=$?
  else
    fail 'slack-notifier: the box has neither curl nor GNU wget: install the package curl before'
  fi
  [ $code = 0 ] || fail "slack-notifier: the webhook did not take the message (code $code)"
  info 'slack-notifier: told'
)
