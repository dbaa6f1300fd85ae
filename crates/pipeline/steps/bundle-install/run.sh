# shellcheck shell=sh
# Installs the gems of a Gemfile into the cache. The settings are exported, because later calls of bundle need them.
if [ -n "${WERCKER_BUNDLE_INSTALL_GEMFILE:-}" ]; then
  export BUNDLE_GEMFILE="$WERCKER_BUNDLE_INSTALL_GEMFILE"
fi
if [ ! -f "${BUNDLE_GEMFILE:-Gemfile}" ]; then
  warn "bundle-install: there is no ${BUNDLE_GEMFILE:-Gemfile} in $PWD: nothing is installed"
else
  # shellcheck disable=SC2154 # given by the caller
  export BUNDLE_PATH="${WERCKER_BUNDLE_INSTALL_PATH:-$WERCKER_CACHE_DIR/bundle-install}"
  # Groups are separated by blanks or colons.
  if [ -n "${WERCKER_BUNDLE_INSTALL_WITHOUT:-}" ]; then
    BUNDLE_WITHOUT=$(printf '%s' "$WERCKER_BUNDLE_INSTALL_WITHOUT" | tr -s ' ,' '::')
    export BUNDLE_WITHOUT
  fi
  if [ -n "${WERCKER_BUNDLE_INSTALL_BINSTUBS:-}" ]; then
    case $WERCKER_BUNDLE_INSTALL_BINSTUBS in
      false) ;;
      true) export BUNDLE_BIN=bin ;;
      *) export BUNDLE_BIN="$WERCKER_BUNDLE_INSTALL_BINSTUBS" ;;
    esac
  fi
  case ${WERCKER_BUNDLE_INSTALL_CLEAN:-} in true) export BUNDLE_CLEAN=true ;; esac
  case ${WERCKER_BUNDLE_INSTALL_DEPLOYMENT:-} in true) export BUNDLE_DEPLOYMENT=true ;; esac
  case ${WERCKER_BUNDLE_INSTALL_FROZEN:-} in true) export BUNDLE_FROZEN=true ;; esac
  case ${WERCKER_BUNDLE_INSTALL_JOBS:-} in '') ;; *) export BUNDLE_JOBS="$WERCKER_BUNDLE_INSTALL_JOBS" ;; esac
  (
    set -eu
    if ! command -v bundle >/dev/null 2>&1; then
      command -v gem >/dev/null 2>&1 || fail 'bundle-install: the box has neither bundle nor gem: use one with Ruby'
      gem install bundler --no-document --version "${WERCKER_BUNDLE_INSTALL_VERSION:->=1.5.2}" ||
        fail 'bundle-install: gem cannot install bundler'
    fi
    set --
    case ${WERCKER_BUNDLE_INSTALL_STANDALONE:-} in '' | false) ;; *) set -- "$@" --standalone ;; esac
    case ${WERCKER_BUNDLE_INSTALL_FULL_INDEX:-} in '' | false) ;; *) set -- "$@" --full-index ;; esac
    case ${WERCKER_BUNDLE_INSTALL_LOCAL:-} in '' | false) ;; *) set -- "$@" --local ;; esac
    bundle --version
    bundle install "$@" || fail "bundle-install: bundle install ended with code $?"
  )
fi
