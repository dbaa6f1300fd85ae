# shellcheck shell=sh
# Installs packages with whatever package manager the box has; what it downloads is kept in the cache.
(
  set -euf
  # Lines arrive joined by a backslash and an n.
  packages=$(printf '%s\n' "${WERCKER_INSTALL_PACKAGES_PACKAGES:-}" | awk '{ gsub(/\\n/, " "); print }')
  # shellcheck disable=SC2086 # words
  set -- $packages
  [ $# -gt 0 ] || fail 'install-packages: name what to install in the property "packages"'

  as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
  }
  cache=${WERCKER_CACHE_DIR:-/tmp}/install-packages
  if [ "${WERCKER_INSTALL_PACKAGES_CLEAR_APT_CACHE:-false}" = true ]; then
    as_root rm -rf "$cache"
  fi

  if command -v apt-get >/dev/null 2>&1; then
    as_root mkdir -p "$cache/apt/partial"
    apt() {
      as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
        -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 -o Dir::Cache::archives="$cache/apt" "$@"
    }
    apt update || fail 'install-packages: apt-get update failed'
    apt install "$@" || fail "install-packages: apt-get cannot install $*"
    # What no source offers any more is of no use to the next run.
    apt autoclean
  elif command -v apk >/dev/null 2>&1; then
    as_root mkdir -p "$cache/apk"
    as_root apk --cache-dir "$cache/apk" --update-cache add "$@" || fail "install-packages: apk cannot add $*"
  elif command -v dnf >/dev/null 2>&1; then
    as_root dnf -y --setopt=cachedir="$cache/dnf" --setopt=keepcache=1 install "$@" ||
      fail "install-packages: dnf cannot install $*"
  elif command -v yum >/dev/null 2>&1; then
    as_root yum -y --setopt=cachedir="$cache/yum" --setopt=keepcache=1 install "$@" ||
      fail "install-packages: yum cannot install $*"
  elif command -v zypper >/dev/null 2>&1; then
    as_root zypper --non-interactive install "$@" || fail "install-packages: zypper cannot install $*"
  else
    fail 'install-packages: the box has none of apt-get, apk, dnf, yum and zypper'
  fi
)
