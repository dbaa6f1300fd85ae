# shellcheck shell=sh
# Runs golint over all packages, and fails where it has much to say.
(
  set -eu
  if ! command -v golint >/dev/null 2>&1; then
    command -v go >/dev/null 2>&1 || fail 'golint: the box has neither golint nor go'
    info 'golint: installing golint'
    GOBIN=$WERCKER_STEP_ROOT GO111MODULE=on go install golang.org/x/lint/golint@latest || fail 'golint: go cannot install golint'
    PATH=$WERCKER_STEP_ROOT:$PATH
  fi
  results=$WERCKER_REPORT_ARTIFACTS_DIR/lint_results.txt
  golint ./... >"$results" || fail "golint: golint ended with code $?"
  if [ -n "${WERCKER_GOLINT_EXCLUDE:-}" ]; then
    grep -v -e "$WERCKER_GOLINT_EXCLUDE" "$results" >"$results.kept" || true
    mv "$results.kept" "$results"
  fi
  cat "$results"
  count=$(grep -c . "$results" || true)
  if [ "$count" -ge "${WERCKER_GOLINT_THRESHOLD_FAIL:-10}" ]; then
    fail "golint: $count findings"
  elif [ "$count" -ge "${WERCKER_GOLINT_THRESHOLD_WARN:-5}" ]; then
    warn "golint: $count findings"
    setMessage "golint: $count findings"
  elif [ "$count" -gt 0 ]; then
    setMessage "golint: $count findings"
  fi
)
