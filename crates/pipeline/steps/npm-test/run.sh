# shellcheck shell=sh
# Runs npm test.
(
  set -euf
  command -v npm >/dev/null 2>&1 || fail 'npm-test: the box has no npm: use one with Node.js'
  [ -f package.json ] || fail "npm-test: there is no package.json in $PWD"
  # shellcheck disable=SC2086 # words
  npm test ${WERCKER_NPM_TEST_OPTIONS:-}
)
