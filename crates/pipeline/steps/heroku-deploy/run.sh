# shellcheck shell=sh
# Pushes the source to a Heroku app by git. The key is in a file, not in arguments.
(
  set -eu
  umask 077
  key=${WERCKER_HEROKU_DEPLOY_KEY:-${HEROKU_KEY:-${HEROKU_API_KEY:-}}}
  app=${WERCKER_HEROKU_DEPLOY_APP_NAME:-${HEROKU_APP_NAME:-}}
  [ -n "$key" ] || fail 'heroku-deploy: the property "key" is missing'
  [ -n "$app" ] || fail 'heroku-deploy: the property "app-name" is missing'
  command -v git >/dev/null 2>&1 || fail 'heroku-deploy: the box has no git: install the package git before'
  remote=${WERCKER_HEROKU_DEPLOY_GIT_URL:-https://git.heroku.com/$app.git}
  # A home of its own: git looks for the key there.
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
  host=${remote#*://}
  printf 'machine %s\n  login %s\n  password %s\n' "${host%%[:/]*}" "${WERCKER_HEROKU_DEPLOY_USER:-heroku}" "$key" >"$dir/.netrc"
  export HOME="$dir" GIT_TERMINAL_PROMPT=0 GIT_DIR="$dir/repository" GIT_WORK_TREE="${WERCKER_HEROKU_DEPLOY_SOURCE_DIR:-$PWD}"
  [ -d "$GIT_WORK_TREE" ] || fail "heroku-deploy: there is no directory $GIT_WORK_TREE"
  # A commit of what is here now, with what earlier steps made; it need not be a repository.
  git init --quiet
  git config user.name 'Sealift'
  git config user.email 'sealift@localhost'
  git add --all .
  git commit --quiet --allow-empty --message "Deploy ${WERCKER_GIT_COMMIT:-}"
  code=0
  git push --force "$remote" HEAD:refs/heads/"${WERCKER_HEROKU_DEPLOY_BRANCH:-master}" || code=$?
  [ $code = 0 ] || fail "heroku-deploy: git push ended with code $code"
)
