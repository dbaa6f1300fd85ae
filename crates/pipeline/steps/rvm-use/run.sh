# shellcheck shell=sh
# Switches to a Ruby of RVM for the steps that follow.
[ -n "${WERCKER_RVM_USE_VERSION:-}" ] || fail 'rvm-use: name the Ruby in the property "version"'
if ! command -v rvm >/dev/null 2>&1 || ! type rvm | grep -q function; then
  for sealift_rvm in "${rvm_path:-$HOME/.rvm}/scripts/rvm" /usr/local/rvm/scripts/rvm /etc/profile.d/rvm.sh; do
    if [ -s "$sealift_rvm" ]; then break; fi
  done
  [ -s "$sealift_rvm" ] || fail 'rvm-use: the box has no RVM: use one that has, or an image with the Ruby you want'
  [ -n "${BASH_VERSION:-}" ] || fail 'rvm-use: RVM needs bash, and the box has none'
  # shellcheck disable=SC1090 # found a moment ago
  . "$sealift_rvm"
  unset sealift_rvm
fi
if [ "${WERCKER_RVM_USE_CREATE:-false}" = true ] && ! rvm use "$WERCKER_RVM_USE_VERSION" >/dev/null 2>&1; then
  rvm install "$WERCKER_RVM_USE_VERSION" || fail "rvm-use: rvm cannot install $WERCKER_RVM_USE_VERSION"
fi
rvm use "$WERCKER_RVM_USE_VERSION" ||
  fail "rvm-use: rvm has no $WERCKER_RVM_USE_VERSION; \"create: true\" installs it"
ruby --version
