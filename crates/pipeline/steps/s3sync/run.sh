# shellcheck shell=sh
# Makes a prefix of an S3 bucket like a directory. The keys stand in the environment or in a file, not in arguments.
(
  set -eu
  umask 077
  bucket=${WERCKER_S3SYNC_BUCKET_URL:-}
  source=${WERCKER_S3SYNC_SOURCE_DIR:-.}
  id=${WERCKER_S3SYNC_KEY_ID:-${AWS_ACCESS_KEY_ID:-}}
  secret=${WERCKER_S3SYNC_KEY_SECRET:-${AWS_SECRET_ACCESS_KEY:-}}
  endpoint=${WERCKER_S3SYNC_ENDPOINT_URL:-}
  [ -n "$id" ] || fail 's3sync: the property "key-id" is missing'
  [ -n "$secret" ] || fail 's3sync: the property "key-secret" is missing'
  case $bucket in
    '') fail 's3sync: the property "bucket-url" is missing' ;;
    s3://?*) ;;
    *) fail "s3sync: bucket-url is s3://BUCKET or s3://BUCKET/PREFIX, not $bucket" ;;
  esac
  [ -d "$source" ] || fail "s3sync: there is no directory $source"
  # With a slash it is what is in the directory, without it the directory itself.
  source=${source%/}/
  case $bucket in */) ;; *) bucket=$bucket/ ;; esac
  opts=${WERCKER_S3SYNC_OPTS:-}
  delete=${WERCKER_S3SYNC_DELETE_REMOVED:-true}
  set -f

  code=0
  if command -v aws >/dev/null 2>&1; then
    # The options are those of s3cmd, as they always were.
    words=
    for word in $opts; do
      case $word in
        --acl-public) words="$words --acl public-read" ;;
        --acl-private) words="$words --acl private" ;;
        *) words="$words $word" ;;
      esac
    done
    # shellcheck disable=SC2086 # words
    set -- s3 sync "$source" "$bucket" --no-progress $words
    if [ "$delete" = true ]; then set -- "$@" --delete; fi
    if [ -n "$endpoint" ]; then set -- --endpoint-url "$endpoint" "$@"; fi
    AWS_ACCESS_KEY_ID=$id AWS_SECRET_ACCESS_KEY=$secret \
      AWS_DEFAULT_REGION=${WERCKER_S3SYNC_REGION:-${AWS_DEFAULT_REGION:-us-east-1}} \
      aws "$@" || code=$?
  elif command -v s3cmd >/dev/null 2>&1; then
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    {
      printf '[default]\naccess_key = %s\nsecret_key = %s\n' "$id" "$secret"
      printf 'bucket_location = %s\n' "${WERCKER_S3SYNC_REGION:-${AWS_DEFAULT_REGION:-us-east-1}}"
      if [ -n "$endpoint" ]; then
        host=${endpoint#*://}
        host=${host%%/*}
        # Buckets in the path: a peer of one's own seldom has a name for each.
        printf 'host_base = %s\nhost_bucket = %s\n' "$host" "$host"
        case $endpoint in http://*) printf 'use_https = False\n' ;; esac
      fi
    } >"$dir/s3cfg"
    # shellcheck disable=SC2086 # words
    set -- $opts
    if [ "$delete" = true ]; then set -- "$@" --delete-removed; else set -- "$@" --no-delete-removed; fi
    s3cmd --config "$dir/s3cfg" --no-progress --no-check-md5 "$@" sync "$source" "$bucket" || code=$?
  else
    fail 's3sync: the box has neither aws nor s3cmd: install one of the packages awscli and s3cmd before'
  fi
  [ $code = 0 ] || fail "s3sync: $bucket was not brought up to date (code $code)"
)
