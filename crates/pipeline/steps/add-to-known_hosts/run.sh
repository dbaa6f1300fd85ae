# shellcheck shell=sh
# Asks a host for its keys, and adds those that are the expected ones to ssh's known hosts.
(
  set -eu
  host=${WERCKER_ADD_TO_KNOWN_HOSTS_HOSTNAME:-}
  wanted=${WERCKER_ADD_TO_KNOWN_HOSTS_FINGERPRINT:-}
  [ -n "$host" ] || fail 'add-to-known_hosts: name the host in the property "hostname"'
  case $host in -*) fail "add-to-known_hosts: $host is no name of a host" ;; esac
  for tool in ssh-keyscan ssh-keygen; do
    command -v "$tool" >/dev/null 2>&1 || fail "add-to-known_hosts: the box has no $tool: install openssh-client"
  done
  if [ "${WERCKER_ADD_TO_KNOWN_HOSTS_LOCAL:-false}" = true ]; then
    mkdir -p "$HOME/.ssh"
    chmod 700 "$HOME/.ssh"
    file=$HOME/.ssh/known_hosts
  else
    [ -d /etc/ssh ] || fail 'add-to-known_hosts: there is no /etc/ssh: install openssh-client'
    file=/etc/ssh/ssh_known_hosts
  fi
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
  # A type that this ssh does not know any more makes it refuse the others too.
  types=
  for type in $(printf '%s' "${WERCKER_ADD_TO_KNOWN_HOSTS_TYPE:-rsa,ecdsa,ed25519}" | tr ',' ' '); do
    if ssh-keyscan -t "$type" -T 1 -p 1 127.0.0.1 2>&1 </dev/null | grep -qi 'unknown key type'; then
      warn "add-to-known_hosts: this ssh knows no keys of type $type"
    else
      types=$types${types:+,}$type
    fi
  done
  [ -n "$types" ] || fail 'add-to-known_hosts: none of the types of keys is known here'
  ssh-keyscan -T 10 -p "${WERCKER_ADD_TO_KNOWN_HOSTS_PORT:-22}" -t "$types" "$host" >"$dir/found" 2>"$dir/said" || true
  if [ ! -s "$dir/found" ]; then
    sed 's/^/ssh-keyscan: /' "$dir/said" >&2
    fail "add-to-known_hosts: $host tells no key of type $types"
  fi
  if [ -z "$wanted" ]; then
    warn 'add-to-known_hosts: without a fingerprint, whoever answered in the place of the host is trusted from now on'
    cat "$dir/found" >"$dir/good"
  else
    case $wanted in
      SHA256:*) digest=sha256 ;;
      *) digest=md5 wanted=MD5:${wanted#MD5:} ;;
    esac
    : >"$dir/good"
    while IFS= read -r line; do
      case $line in '' | '#'*) continue ;; esac
      printf '%s\n' "$line" >"$dir/one"
      mark=$(ssh-keygen -l -E "$digest" -f "$dir/one" | cut -d ' ' -f 2)
      if [ "$mark" = "$wanted" ]; then cat "$dir/one" >>"$dir/good"; else printf '%s\n' "$mark" >>"$dir/others"; fi
    done <"$dir/found"
    if [ ! -s "$dir/good" ]; then
      info "add-to-known_hosts: $host has these fingerprints:"
      sed 's/^/  /' "$dir/others"
      fail "add-to-known_hosts: no key of $host has the fingerprint $wanted"
    fi
  fi
  cat "$dir/good" >>"$file"
  chmod 644 "$file"
  info "add-to-known_hosts: $(grep -c -v '^#' "$dir/good") keys of $host are in $file"
)
