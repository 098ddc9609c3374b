#!/bin/sh
# Makes one image with all servers from Debian's packages, for a Docker engine that reaches no registry. $1 is its name.
# Nothing in it starts by itself: tests say which program they want. It needs mmdebstrap and the command `docker`.
set -eu
export LC_ALL=C
image=$1
suite=bookworm
postgres=15
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$work"

# The mirror of this machine, if it has the same release.
sources=
if grep -q "^VERSION_CODENAME=$suite\$" /etc/os-release; then
    for list in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
        [ -n "$sources" ] || [ ! -s "$list" ] || sources=$list
    done
fi

# The package of PostgreSQL would make a cluster.
no_cluster="mkdir -p \"\$1/etc/postgresql-common\"; echo 'create_main_cluster = false' >\"\$1/etc/postgresql-common/createcluster.conf\""
versions="chroot \"\$1\" dpkg-query -W -f '\${Package} \${source:Upstream-Version}\\n' >\"$work/versions\""
mmdebstrap --quiet --variant=minbase \
    --aptopt='Apt::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --setup-hook="$no_cluster" \
    --customize-hook="$versions" \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin' \
    --include="redis-server,postgresql-$postgres,pgbouncer,etcd-server,etcd-client,mariadb-server-core,mariadb-client-core" \
    "$suite" "$work/root.tar" ${sources:+"$sources"}

# As images of their makers say it.
version() {
    sed -n "s/^$1 //p" "$work/versions"
}
docker import \
    --change "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/$postgres/bin" \
    --change "ENV REDIS_VERSION=$(version redis-server)" \
    --change "ENV PG_VERSION=$(version "postgresql-$postgres")" \
    --change "ENV PGBOUNCER_VERSION=$(version pgbouncer)" \
    --change "ENV ETCD_VERSION=$(version etcd-server)" \
    --change "ENV MARIADB_VERSION=$(version mariadb-server-core)" \
    "$work/root.tar" "$image"
