# shellcheck shell=sh
# Switches to a Node.js of nvm for the steps that follow.
if ! command -v nvm >/dev/null 2>&1; then
  export NVM_DIR="${NVM_DIR:-$HOME/.nvm}"
  [ -s "$NVM_DIR/nvm.sh" ] || fail "nvm: there is no nvm in $NVM_DIR: use a box that has it, or an image with the Node.js you want"
  # shellcheck disable=SC1091 # checked a moment ago
  . "$NVM_DIR/nvm.sh"
fi
if [ -n "${WERCKER_NVM_VERSION:-}" ]; then
  sealift_version=$WERCKER_NVM_VERSION
elif [ -f .nvmrc ]; then
  sealift_version=$(cat .nvmrc)
else
  fail 'nvm: name the Node.js in the property "version", or in a file .nvmrc'
fi
if ! nvm use "$sealift_version" >/dev/null 2>&1; then
  [ "${WERCKER_NVM_INSTALL:-true}" = true ] || fail "nvm: there is no Node.js $sealift_version here; \"install: true\" fetches it"
  nvm install "$sealift_version" || fail "nvm: cannot install Node.js $sealift_version"
fi
nvm use "$sealift_version" || fail "nvm: cannot use Node.js $sealift_version"
unset sealift_version
node --version
