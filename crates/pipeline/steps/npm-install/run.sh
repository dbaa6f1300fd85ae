# shellcheck shell=sh
# Runs npm install up to three times, with npm's cache in the cache directory.
(
  set -euf
  command -v npm >/dev/null 2>&1 || fail 'npm-install: the box has no npm: use one with Node.js'
  if [ "${WERCKER_NPM_INSTALL_USE_CACHE:-true}" = true ]; then
    export npm_config_cache="${WERCKER_CACHE_DIR:-/tmp}/npm"
  fi
  # shellcheck disable=SC2086 # words
  set -- ${WERCKER_NPM_INSTALL_OPTIONS:-} ${WERCKER_NPM_INSTALL_PACKAGES:-}
  try=1
  until npm install "$@"; do
    code=$?
    [ $try -lt 3 ] || fail "npm-install: npm install failed three times, last with code $code"
    warn "npm-install: npm install failed with code $code; trying again"
    if [ "${WERCKER_NPM_INSTALL_CLEAR_CACHE_ON_FAILED:-true}" = true ]; then
      npm cache clean --force || warn 'npm-install: the cache cannot be cleared'
    fi
    try=$((try + 1))
  done
)
