# The keeper of one server. Its standard input and output are one socket, whose other end only the test process has.
# It leads a process group of its own, in which the server lives, so no Ctrl-C reaches it.
# $1 is the server's directory, $2 is `new` if it is to be made; then comes the server's command line.
#
# It ignores what would end it. What it starts inherits that; servers set the signals that they want to hear.
trap '' HUP INT QUIT TERM PIPE
exec 2>/dev/null
directory=$1 age=$2 waiter=
shift 2

# What is done to a process is done to all below it as well. Some lead sessions of their own, so that no group has them all.
# Who can't see them, elsewhere than on Linux, trusts that they end with their parent.
children() {
    found=
    read -r found <"/proc/$1/task/$1/children"
}

stands_still() {
    stat=
    read -r stat <"/proc/$1/stat"
    case ${stat##*) } in [TtZX]* | '') ;; *) return 1 ;; esac
}

# Once a process stands still it has no more children. When the test process dies, the system lets its stopped orphans go on.
pause() {
    kill -STOP "$1"
    tries=0
    until stands_still "$1" || [ "$tries" -ge 2000 ]; do
        tries=$((tries + 1))
        sleep 0.002
        kill -STOP "$1"
    done
    children "$1"
    for child in $found; do pause "$child"; done
}

resume() {
    children "$1"
    for child in $found; do resume "$child"; done
    kill -CONT "$1"
}

end_paused() {
    children "$1"
    for child in $found; do end_paused "$child"; done
    kill -KILL "$1"
    # System V shared memory outlives those who made it.
    while read -r _ segment _ _ creator _; do
        [ "$creator" != "$1" ] || ipcrm -m "$segment"
    done </proc/sysvipc/shm
}

end() {
    pause "$1"
    end_paused "$1"
}

if [ "$age" = new ]; then
    # Refused if anything is there already: what somebody else made is never removed.
    mkdir -m 700 "$directory" || exit 1
    mkdir -m 700 "$directory/data"
fi
echo kept
while read -r order process; do
    case $order in
    start)
        (
            # By descriptor 3 the test process learns when the last child of the server is gone.
            "$@" </dev/null 3>&1 >>"$directory/log" 2>&1 &
            echo "started $!"
            wait "$!"
            echo "ended $?"
        ) &
        waiter=$!
        ;;
    pause)
        pause "$process"
        echo paused
        ;;
    resume)
        resume "$process"
        echo resumed
        ;;
    end)
        end "$process"
        echo killed
        ;;
    esac
done
# The test process is gone, or has said good-bye.
[ -z "$waiter" ] || end "$waiter"
# What nobody could see may still be writing, until the directory is no more.
tries=0
until rm -rf "$directory" || [ "$tries" -ge 100 ]; do
    tries=$((tries + 1))
    sleep 0.05
done
kill -KILL 0
