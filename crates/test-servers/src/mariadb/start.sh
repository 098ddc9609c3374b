# Starts a private MariaDB or MySQL server, after its data directory has been made if there is none.
# $1 is the program, $2 the data directory, $3 the option file, $4 a template that all servers of this account and version share; then come
# the options that every data directory is made with.
set -e
server=$1 data=$2 options=$3 template=$4
shift 4
# MySQL's images have it under this name alone.
command -v "$server" >/dev/null || server=mysqld
if [ ! -d "$data/mysql" ]; then
    # A data directory is there only when it is whole: whoever makes it may be killed.
    new=$data.new
    rm -rf "$new"
    # Nobody else's: temporary files are for everybody to make.
    if [ -f "$template" ] && [ ! -L "$template" ] && [ -O "$template" ]; then
        mkdir -m 700 "$new"
        tar -xf "$template" -C "$new"
    else
        echo 'CREATE DATABASE test;' >"$data.sql"
        # Whoever starts removes the temporary tables that it finds, be they those of another server.
        set -- --datadir="$new" --tmpdir="${data%/*}" "$@"
        case $("$server" --no-defaults --version) in
        *MariaDB*)
            # On success it says much, and nothing of what happened.
            mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db --force \
                --extra-file="$data.sql" "$@" >"$data.said" || {
                head -n 4 "$data.said"
                exit 1
            }
            ;;
        *)
            # As the other has it: who comes over the network is of this host also when no names are looked up.
            echo "CREATE USER root@127.0.0.1; GRANT ALL ON *.* TO root@127.0.0.1 WITH GRANT OPTION;" >>"$data.sql"
            "$server" --no-defaults --initialize-insecure --init-file="$data.sql" "$@"
            # By its number a server is known to others. One without makes one.
            rm -f "$new/auto.cnf"
            ;;
        esac
        # Whoever reads another one goes on reading that. An image without tar does without a template.
        tar -cf "$data.tar" -C "$new" . && mv -f "$data.tar" "$template" || rm -f "$data.tar"
    fi
    rmdir "$data"
    mv "$new" "$data"
fi
exec "$server" --defaults-file="$options"
