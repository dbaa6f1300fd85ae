# shellcheck shell=sh
# Writes config/database.yml for the database service of the run.
(
  set -eu
  # value NAME: what is in the variable of that name.
  value() { eval "printf '%s' \"\${$1:-}\""; }
  # found KIND PORT ALIAS..: the first alias that has a service with that port.
  found() {
    kind=$1 port=$2
    shift 2
    for alias; do
      host=$(value "${alias}_PORT_${port}_TCP_ADDR")
      if [ -n "$host" ]; then return 0; fi
    done
    return 1
  }
  postgres() { found postgresql 5432 POSTGRES POSTGRESQL POSTGIS PG DB DATABASE; }
  mysql() { found mysql 3306 MYSQL MARIADB PERCONA DB DATABASE; }

  case ${WERCKER_RAILS_DATABASE_YML_SERVICE:-} in
    '') postgres || mysql || fail 'rails-database-yml: the run has no service with PostgreSQL or MySQL' ;;
    postgres*) postgres || fail 'rails-database-yml: the run has no service with PostgreSQL (port 5432)' ;;
    mysql* | mariadb*) mysql || fail 'rails-database-yml: the run has no service with MySQL (port 3306)' ;;
    *) fail "rails-database-yml: \"service\" is postgresql or mysql, not $WERCKER_RAILS_DATABASE_YML_SERVICE" ;;
  esac
  # A text as YAML takes it, whatever is in it.
  quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/''/g")"; }
  if [ "$kind" = postgresql ]; then
    adapter=postgresql
    user=$(value "${alias}_ENV_POSTGRES_USER")
    user=${user:-postgres}
    password=$(value "${alias}_ENV_POSTGRES_PASSWORD")
    database=$(value "${alias}_ENV_POSTGRES_DB")
    database=${database:-$user}
  else
    adapter=mysql2
    user=$(value "${alias}_ENV_MYSQL_USER")
    password=$(value "${alias}_ENV_MYSQL_PASSWORD")
    if [ -z "$user" ]; then
      user=root
      password=$(value "${alias}_ENV_MYSQL_ROOT_PASSWORD")
    fi
    database=$(value "${alias}_ENV_MYSQL_DATABASE")
    database=${database:-test}
  fi
  if [ -f config/database.yml ]; then info 'rails-database-yml: config/database.yml is there and is replaced'; fi
  mkdir -p config
  {
    printf 'test:\n  adapter: %s\n  host: %s\n  port: %s\n' "$adapter" "$(quoted "$host")" "$port"
    printf '  database: %s\n  username: %s\n  password: %s\n' "$(quoted "$database")" "$(quoted "$user")" "$(quoted "$password")"
    printf '  encoding: utf8\n'
    if [ "$kind" = postgresql ]; then
      printf '  min_messages: %s\n' "$(quoted "${WERCKER_RAILS_DATABASE_YML_POSTGRESQL_MIN_MESSAGE:-warning}")"
    fi
  } >config/database.yml
  info "rails-database-yml: wrote config/database.yml for the $kind at $host"
)
