# shellcheck shell=sh
# Writes a private key from a variable into ~/.ssh, and tells ssh to use it.
(
  set -eu
  umask 077
  name=${WERCKER_ADD_SSH_KEY_KEYNAME:-}
  case $name in
    '') fail 'add-ssh-key: name the key in the property "keyname"' ;;
    *[!A-Za-z0-9_]* | [0-9]*) fail "add-ssh-key: \"$name\" is no name of a variable: give the key's name, not the key" ;;
  esac
  eval "key=\${${name}_PRIVATE:-}"
  [ -n "$key" ] || fail "add-ssh-key: the variable ${name}_PRIVATE is not set, or is empty"
  case $key in
    *'PRIVATE KEY'*) ;;
    *) fail "add-ssh-key: what is in ${name}_PRIVATE is no private key" ;;
  esac
  mkdir -p "$HOME/.ssh"
  # A key may have come with its lines joined by a backslash and an n, and with the line ends of another system.
  printf '%s\n' "$key" | awk '{ gsub(/\\r/, ""); gsub(/\r/, ""); gsub(/\\n/, "\n"); print }' | sed '/^$/d' >"$HOME/.ssh/$name"
  if command -v ssh-keygen >/dev/null 2>&1; then
    # One that wants a passphrase cannot be used where nobody can type.
    ssh-keygen -y -P '' -f "$HOME/.ssh/$name" >/dev/null 2>&1 || {
      rm -f "$HOME/.ssh/$name"
      fail "add-ssh-key: ssh-keygen does not take what is in ${name}_PRIVATE: is it whole, and without a passphrase?"
    }
  fi
  printf 'Host %s\n  IdentityFile %s\n' "${WERCKER_ADD_SSH_KEY_HOST:-*}" "$HOME/.ssh/$name" >>"$HOME/.ssh/config"
  info "add-ssh-key: ssh uses $name for ${WERCKER_ADD_SSH_KEY_HOST:-every host}"
)
