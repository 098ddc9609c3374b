# The keeper of one server. Its standard input and output are one socket, whose other end only the test process has.
# It leads a process group of its own, in which the server and its children live, so no Ctrl-C reaches them.
# $1 is the server's directory, $2 is `new` if it is to be made; then comes the server's command line.
#
# It ignores what would end it. What it starts inherits that; servers set the signals that they want to hear.
trap '' HUP INT QUIT TERM PIPE
directory=$1 age=$2
shift 2
if [ "$age" = new ]; then
    # Refused if anything is there already: what somebody else made is never removed.
    mkdir -m 700 "$directory" || exit 1
    mkdir "$directory/data"
fi
echo kept
while read -r order; do
    [ "$order" = start ] || continue
    (
        # By descriptor 3 the test process learns when the last child of the server is gone.
        "$@" </dev/null 3>&1 >>"$directory/log" 2>&1 &
        echo "started $!"
        wait "$!"
        echo "ended $?"
    ) &
done
# The test process is gone, or has said good-bye. The server may still be writing, until the directory is no more.
tries=0
until rm -rf "$directory" 2>/dev/null || [ "$tries" -ge 100 ]; do
    tries=$((tries + 1))
    sleep 0.05
done
kill -KILL 0
