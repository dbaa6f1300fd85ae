# shellcheck shell=sh
# Makes a virtual environment for Python, and activates it for the steps that follow.
WERCKER_VIRTUALENV_VIRTUALENV_LOCATION=${WERCKER_VIRTUALENV_VIRTUALENV_LOCATION:-$HOME/venv}
(
  set -eu
  location=$WERCKER_VIRTUALENV_VIRTUALENV_LOCATION
  python=${WERCKER_VIRTUALENV_PYTHON_LOCATION:-}
  if [ -z "$python" ]; then
    python=$(command -v python3 || command -v python || true)
    [ -n "$python" ] || fail 'virtualenv: the box has no python'
  fi
  command -v "$python" >/dev/null 2>&1 || fail "virtualenv: there is no $python in the box"
  if [ -f "$location/bin/activate" ]; then
    info "virtualenv: $location is there"
  elif command -v virtualenv >/dev/null 2>&1; then
    virtualenv --python "$python" "$location" || fail "virtualenv: cannot make $location"
  else
    "$python" -m venv "$location" ||
      fail "virtualenv: cannot make $location: install the package python3-venv, or virtualenv"
  fi
  if [ "${WERCKER_VIRTUALENV_INSTALL_WHEEL:-false}" = true ]; then
    PIP_CACHE_DIR="${WERCKER_CACHE_DIR:-/tmp}/pip" "$location/bin/pip" install wheel ||
      fail 'virtualenv: pip cannot install wheel'
  fi
)
case $? in
  0)
    # shellcheck disable=SC1091 # made a moment ago
    . "$WERCKER_VIRTUALENV_VIRTUALENV_LOCATION/bin/activate"
    ;;
  *) return 1 ;;
esac
