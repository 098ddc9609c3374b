# Starts a private PostgreSQL server, after its cluster has been made if there is none.
# $1 is the directory of the programs with a slash at its end, or nothing if they are in the search path, $2 that of the cluster, $3 the
# configuration, $4 a template that all servers of this account and version share, $5 the port of the primary if it is to be a standby.
set -e
programs=$1 data=$2 configuration=$3 template=$4 primary=$5
if [ ! -e "$data/PG_VERSION" ]; then
    # A cluster is there only when it is whole: whoever makes it may be killed.
    new=$data.new
    rm -rf "$new"
    if [ -n "$primary" ]; then
        "${programs}pg_basebackup" -D "$new" -d "host=127.0.0.1 port=$primary user=postgres" -c fast -X stream --no-sync
        touch "$new/standby.signal"
    # Nobody else's: temporary files are for everybody to make.
    elif [ -f "$template" ] && [ ! -L "$template" ] && [ -O "$template" ]; then
        mkdir -m 700 "$new"
        tar -xf "$template" -C "$new"
    else
        "${programs}initdb" -D "$new" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --wal-segsize=1 --no-sync
        # Most of the time of a start is that of a file system that makes a thousand files. These are two thirds of them.
        "${programs}postgres" --single -D "$new" -c fsync=off postgres <<-'END'
		UPDATE pg_database SET datistemplate = false;
		DROP DATABASE template0;
		DROP DATABASE template1;
		END
        tar -cf "$data.tar" -C "$new" .
        # Whoever reads another one goes on reading that.
        mv -f "$data.tar" "$template" || rm "$data.tar"
    fi
    rmdir "$data"
    mv "$new" "$data"
fi
exec "${programs}postgres" -D "$data" -c "config_file=$configuration"
