# shellcheck shell=sh
# Lays the source tree into a Go workspace by a link, and lets the steps that follow work there.
if [ -n "${WERCKER_SETUP_GO_WORKSPACE_PACKAGE_DIR:-}" ]; then
  sealift_package=$WERCKER_SETUP_GO_WORKSPACE_PACKAGE_DIR
else
  # What is not known of the repository is left out.
  sealift_package=
  for sealift_part in "${WERCKER_GIT_DOMAIN:-}" "${WERCKER_GIT_OWNER:-}" \
    "${WERCKER_GIT_REPOSITORY:-${WERCKER_APPLICATION_NAME:-}}"; do
    if [ -n "$sealift_part" ]; then sealift_package=$sealift_package${sealift_package:+/}$sealift_part; fi
  done
fi
case $sealift_package in
  '') fail 'setup-go-workspace: nothing is known of the repository: give the property "package-dir"' ;;
  /* | .. | ../* | */.. | */../*) fail "setup-go-workspace: $sealift_package is no package" ;;
esac
# shellcheck disable=SC2154 # given by the caller
export GOPATH="${GOPATH:-$WERCKER_PIPELINE_DIR/go}"
# The first of several counts.
sealift_place=${GOPATH%%:*}/src/$sealift_package
if [ "$WERCKER_SOURCE_DIR" != "$sealift_place" ]; then
  [ ! -d "$sealift_place" ] || [ -L "$sealift_place" ] ||
    fail "setup-go-workspace: $sealift_place is there already, and is no link of this step"
  mkdir -p "${sealift_place%/*}" "${GOPATH%%:*}/bin" || fail "setup-go-workspace: cannot make ${sealift_place%/*}"
  ln -sfn "$WERCKER_SOURCE_DIR" "$sealift_place" || fail "setup-go-workspace: cannot make $sealift_place"
  export WERCKER_SOURCE_DIR="$sealift_place"
fi
export PATH="${GOPATH%%:*}/bin:$PATH"
# Go 1.16 and later look for modules first; code that has none is meant for the workspace.
if [ -z "${GO111MODULE:-}" ] && [ ! -f "$sealift_place/go.mod" ]; then export GO111MODULE=off; fi
cd "$WERCKER_SOURCE_DIR" || fail "setup-go-workspace: cannot enter $WERCKER_SOURCE_DIR"
info "setup-go-workspace: the source is in $WERCKER_SOURCE_DIR"
unset sealift_package sealift_part sealift_place
