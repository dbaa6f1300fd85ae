# shellcheck shell=sh
# Installs Python packages from a requirements file, or by name.
(
  set -euf
  if [ -n "${WERCKER_PIP_INSTALL_PIP_COMMAND:-}" ]; then
    pip() { command $WERCKER_PIP_INSTALL_PIP_COMMAND "$@"; }
  elif command -v pip >/dev/null 2>&1; then
    pip() { command pip "$@"; }
  elif command -v pip3 >/dev/null 2>&1; then
    pip() { command pip3 "$@"; }
  elif command -v python3 >/dev/null 2>&1; then
    pip() { command python3 -m pip "$@"; }
  else
    fail 'pip-install: the box has neither pip nor python3'
  fi
  if [ "${WERCKER_PIP_INSTALL_CLEAN_WHEEL_DIR:-false}" = true ]; then
    rm -rf "${WERCKER_CACHE_DIR:-/tmp}/pip"
  fi
  export PIP_CACHE_DIR="${WERCKER_CACHE_DIR:-/tmp}/pip"
  export PIP_DISABLE_PIP_VERSION_CHECK=1

  # shellcheck disable=SC2086 # words
  set -- ${WERCKER_PIP_INSTALL_EXTRA_ARGS:-} ${WERCKER_PIP_INSTALL_PACKAGES_LIST:-}
  requirements=${WERCKER_PIP_INSTALL_REQUIREMENTS_FILE:-}
  # Without a word of either, there must be the usual file; packages alone need none.
  if [ -z "$requirements" ] && [ -z "${WERCKER_PIP_INSTALL_PACKAGES_LIST:-}" ]; then
    requirements=requirements.txt
  fi
  if [ -n "$requirements" ]; then
    [ -f "$requirements" ] || fail "pip-install: there is no $requirements in $PWD"
    set -- "$@" --requirement "$requirements"
  fi
  code=0
  pip install "$@" || code=$?
  if [ $code != 0 ]; then
    hint=
    [ -n "${VIRTUAL_ENV:-}" ] || hint='; a step "virtualenv" before this one keeps the packages out of the system'
    fail "pip-install: pip install ended with code $code$hint"
  fi
)
