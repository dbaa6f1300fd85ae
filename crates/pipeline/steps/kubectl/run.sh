# shellcheck shell=sh
# Runs kubectl. Where it connects to and as whom stands in a file, so that no secret is in its arguments.
(
  set -eu
  command -v kubectl >/dev/null 2>&1 || fail 'kubectl: the box has no kubectl: use one that has, or install it before'
  command=${WERCKER_KUBECTL_COMMAND:-${WERCKER_KUBECTL_CMD:-}}
  [ -n "$command" ] || fail 'kubectl: give what to do in the property "command"'
  umask 077
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
  # A path in the file would be taken as one beside the file.
  path() {
    case $2 in
      /*) entry "$1" "$2" ;;
      *) entry "$1" "$PWD/$2" ;;
    esac
  }

  server=${WERCKER_KUBECTL_SERVER:-}
  ca=${WERCKER_KUBECTL_CERTIFICATE_AUTHORITY:-}
  token=${WERCKER_KUBECTL_TOKEN:-}
  user=${WERCKER_KUBECTL_USERNAME:-}
  password=${WERCKER_KUBECTL_PASSWORD:-}
  certificate=${WERCKER_KUBECTL_CLIENT_CERTIFICATE:-}
  key=${WERCKER_KUBECTL_CLIENT_KEY:-}
  # Without any of these it is the box's own configuration that counts.
  if [ -n "$server$token$user$password$certificate$key" ]; then
    [ -n "$server" ] || fail 'kubectl: name the server in the property "server"'
    {
      printf '{"apiVersion": "v1", "kind": "Config", "current-context": "sealift",\n'
      printf '"contexts": [{"name": "sealift", "context": {"cluster": "sealift", "user": "sealift"}}],\n'
      printf '"clusters": [{"name": "sealift", "cluster": {'
      entry server "$server"
      if [ "${WERCKER_KUBECTL_INSECURE_SKIP_TLS_VERIFY:-false}" = true ]; then
        printf ', "insecure-skip-tls-verify": true'
      elif [ -n "$ca" ]; then
        printf ', '
        path certificate-authority "$ca"
      fi
      printf '}}],\n"users": [{"name": "sealift", "user": {'
      comma=
      if [ -n "$token" ]; then
        entry token "$token"
        comma=', '
      fi
      if [ -n "$user$password" ]; then
        printf '%s' "$comma"
        entry username "$user"
        printf ', '
        entry password "$password"
        comma=', '
      fi
      if [ -n "$certificate" ]; then
        printf '%s' "$comma"
        path client-certificate "$certificate"
        comma=', '
      fi
      if [ -n "$key" ]; then
        printf '%s' "$comma"
        path client-key "$key"
      fi
      printf '}}]}\n'
    } >"$dir/config"
    export KUBECONFIG="$dir/config"
  fi

  # Flags come first: behind the command they could belong to another one, for a command may go on with ";".
  flag() {
    if [ -n "$2" ]; then flags="${flags:+$flags }--$1=$(printf '%s\n' "$2" | sed "s/'/'\\\\''/g; s/^/'/; s/\$/'/")"; fi
  }
  flags=
  flag all "${WERCKER_KUBECTL_ALL:-}"
  flag current-replicas "${WERCKER_KUBECTL_CURRENT_REPLICAS:-}"
  flag deployment-label-key "${WERCKER_KUBECTL_DEPLOYMENT_LABEL_KEY:-}"
  flag filename "${WERCKER_KUBECTL_FILE:-}"
  flag grace-period "${WERCKER_KUBECTL_GRACE_PERIOD:-}"
  flag image "${WERCKER_KUBECTL_IMAGE:-}"
  flag interactive "${WERCKER_KUBECTL_INTERACTIVE:-}"
  flag namespace "${WERCKER_KUBECTL_NAMESPACE:-}"
  flag output "${WERCKER_KUBECTL_OUTPUT:-}"
  flag overwrite "${WERCKER_KUBECTL_OVERWRITE:-}"
  flag patch "${WERCKER_KUBECTL_PATCH:-}"
  flag pod "${WERCKER_KUBECTL_POD:-}"
  flag poll-interval "${WERCKER_KUBECTL_POLL_INTERVAL:-}"
  flag replicas "${WERCKER_KUBECTL_REPLICAS:-}"
  flag resource-version "${WERCKER_KUBECTL_RESOURCE_VERSION:-}"
  flag rollback "${WERCKER_KUBECTL_ROLLBACK:-}"
  flag selector "${WERCKER_KUBECTL_SELECTOR:-}"
  flag stdin "${WERCKER_KUBECTL_STDIN:-}"
  flag template "${WERCKER_KUBECTL_TEMPLATE:-}"
  flag timeout "${WERCKER_KUBECTL_TIMEOUT:-}"
  flag tty "${WERCKER_KUBECTL_TTY:-}"
  flag update-period "${WERCKER_KUBECTL_UPDATE_PERIOD:-}"

  line=kubectl
  for part in "${WERCKER_KUBECTL_RAW_GLOBAL_ARGS:-}" "${WERCKER_KUBECTL_FLAGS:-}" "$flags" "$command" "${WERCKER_KUBECTL_RAW_ARGS:-}"; do
    if [ -n "$part" ]; then line="$line $part"; fi
  done
  if [ "${WERCKER_KUBECTL_DEBUG:-false}" = true ]; then info "$line"; fi
  code=0
  eval "$line" || code=$?
  [ $code = 0 ] || fail "kubectl: ended with code $code"
)
