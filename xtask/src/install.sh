# Installs packages on Debian and its like without starting the services in them: tests start servers of their own.
set -eu
export LC_ALL=C
policy=/usr/sbin/policy-rc.d
before=$(mktemp)
trap 'rm -f "$before"' EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e "$policy" ]; then
    trap 'rm -f "$before" "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
# PostgreSQL's packages make a database cluster that starts with the machine, unless they are told otherwise before they come.
clusters=/etc/postgresql-common/createcluster.conf
case " $* " in
*' postgresql '*)
    if [ ! -e "$clusters" ]; then
        mkdir -p "${clusters%/*}"
        printf '# Written by "cargo xtask test --install". It does not keep pg_createcluster from making clusters.\n' >"$clusters"
        printf 'create_main_cluster = false\n' >>"$clusters"
    fi
    ;;
esac
services() {
    find /lib/systemd/system /usr/lib/systemd/system -name '*.service' ! -name '*@*' 2>/dev/null | sed 's|.*/||' | sort -u
}
services >"$before"
# One unreachable source of packages is no reason to give up.
apt-get -q update || echo "apt-get update failed; trying with the lists that are here" >&2
DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -q -y --no-install-recommends "$@"
# Nor is the machine to start them when it starts the next time. A service that was here before is its owner's.
if [ -d /run/systemd/system ]; then
    services | comm -13 "$before" - | while read -r service; do
        systemctl disable "$service" || echo "$service can't be disabled" >&2
    done
fi
