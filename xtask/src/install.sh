# Installs packages on Debian and its like without starting the services in them: tests start servers of their own.
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
# One unreachable source of packages is no reason to give up.
apt-get -q update || echo "apt-get update failed; trying with the lists that are here" >&2
DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -q -y --no-install-recommends "$@"
# Nor is the machine to start them when it starts the next time.
if [ -d /run/systemd/system ]; then
    for package in "$@"; do
        systemctl disable "$package" || echo "$package can't be disabled" >&2
    done
fi
