-- SPDX-License-Identifier: MIT
-- regolith dev: private MariaDB (or MySQL) and Redis on sockets under .regolith/, for trying and
-- testing. Their addresses are in REGOLITH_MYSQL_URL and REGOLITH_REDIS_URL of the command.

local ffi = require "ffi"

local M = {}

--- $1 is the folder, $2 and $3 are those of the modules or empty, the rest is the command. Servers that are up already
--- are used and left running.
local SCRIPT = [==[
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
dir=$1 modules=$2 libraries=$3
shift 3
# The command finds the modules where this program found them: those of a checkout are on no path.
of_path() {
    [ -n "$1" ] || return 1
    (cd "$1" && pwd -P) 2>/dev/null | grep -v '[;?%]'
}
if at=$(of_path "$modules"); then export LUA_PATH="$at/?.lua;$at/?/init.lua;${LUA_PATH-;}"; fi
if at=$(of_path "$libraries"); then export LUA_CPATH="$at/?.so;${LUA_CPATH-;}"; fi
fail() { echo "regolith: $*" >&2; exit 1; }
mysqld=$(command -v mariadbd || command -v mysqld) || fail "neither mariadbd nor mysqld is installed"
client=$(command -v mariadb || command -v mysql) || fail "no mysql client is installed"
command -v redis-server >/dev/null || fail "redis-server is not installed"
{ mkdir -p "$dir" && chmod 700 "$dir"; } || fail "the servers need a folder: $dir cannot be made (see REGOLITH_DEV_DIR)"
dir=$(cd "$dir" && pwd -P)
# Through a folder of its own, whose path a socket's address, a URL, and mariadb-install-db (which quotes
# nothing) can all take.
sockets=$dir there=$dir plain=yes
case $dir in *[!A-Za-z0-9/._-]*) plain= ;; esac
if [ ${#dir} -gt 80 ] || [ -z "$plain" ]; then
    sockets=$(cat "$dir/sockets" 2>/dev/null || true)
    [ -d "$sockets" ] && [ -O "$sockets" ] || sockets=$(mktemp -d /tmp/regolith.XXXXXX)
    echo "$sockets" >"$dir/sockets"
    there=$sockets/dir
    ln -sfn "$dir" "$there"
fi
as_root=
[ "$(id -u)" != 0 ] || as_root=--user=root
if [ ! -d "$dir/mysql" ]; then
    echo "regolith: making a database under $dir" >&2
    rm -rf "$dir/mysql.new"
    if command -v mariadb-install-db >/dev/null; then
        mariadb-install-db --no-defaults --force --skip-test-db --skip-name-resolve --datadir="$there/mysql.new" \
            --auth-root-authentication-method=normal $as_root >"$dir/install.log" 2>&1 ||
            { tail "$dir/install.log" >&2; exit 1; }
    else
        "$mysqld" --no-defaults --initialize-insecure --datadir="$dir/mysql.new" $as_root >"$dir/install.log" 2>&1 ||
            { tail "$dir/install.log" >&2; exit 1; }
    fi
    mv "$dir/mysql.new" "$dir/mysql"
fi
sql() { "$client" --no-defaults -uroot --socket="$sockets/mysql.sock" -e "$1" >/dev/null 2>&1; }
ping_redis() { [ "$(redis-cli -s "$sockets/redis.sock" ping 2>/dev/null)" = PONG ]; }
own_mysql= own_redis= child=
stop() {
    trap - EXIT
    trap '' INT TERM HUP
    for pid in $child $own_redis $own_mysql; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" || true
    done
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
if ! sql "select 1"; then
    rm -f "$sockets/mysql.sock" "$sockets/mysql.sock.lock"
    setsid "$mysqld" --no-defaults $as_root --datadir="$dir/mysql" --socket="$sockets/mysql.sock" --skip-networking \
        --skip-name-resolve --skip-log-bin --pid-file="$dir/mysqld.pid" --innodb-buffer-pool-size=64M \
        --character-set-server=utf8mb4 </dev/null >"$dir/mysql.log" 2>&1 &
    own_mysql=$!
fi
if ! ping_redis; then
    rm -f "$sockets/redis.sock"
    setsid redis-server --port 0 --unixsocket "$sockets/redis.sock" --unixsocketperm 700 --dir "$dir" --save '' \
        --appendonly yes --maxmemory-policy noeviction </dev/null >"$dir/redis.log" 2>&1 &
    own_redis=$!
fi
n=0
until sql "create database if not exists app character set utf8mb4" && ping_redis; do
    n=$((n + 1))
    ended=
    for pid in $own_redis $own_mysql; do kill -0 "$pid" 2>/dev/null || ended=yes; done
    if [ $n -ge 600 ] || [ "$ended" ]; then
        tail "$dir/mysql.log" "$dir/redis.log" >&2
        fail "the servers did not start"
    fi
    sleep 0.1
done
export REGOLITH_MYSQL_URL="mysql+unix://$sockets/mysql.sock?user=root&db=app"
export REGOLITH_REDIS_URL="redis+unix://$sockets/redis.sock"
# In the background, so that a signal is acted on at once; there it would be deaf to Ctrl-C.
if [ $# -gt 0 ]; then
    code=0
    if env --default-signal=INT true 2>/dev/null; then set -- env --default-signal=INT,QUIT "$@"; fi
    exec 3<&0 # what is in the background has no stdin otherwise
    "$@" <&3 3<&- &
    child=$!
    wait "$child" || code=$?
    child=
    exit $code
fi
echo "export REGOLITH_MYSQL_URL='$REGOLITH_MYSQL_URL'"
echo "export REGOLITH_REDIS_URL='$REGOLITH_REDIS_URL'"
echo "regolith: the servers run until Ctrl-C" >&2
while :; do
    sleep 3600 &
    child=$!
    wait "$child" || true
done
]==]

--- The folder on a path that has a module under this name; "" when it is none that a path can name.
local function folder_of(module, path, ending)
  local folder, n = (package.searchpath(module, path) or ""):gsub(ending, "")
  return n == 1 and (folder == "" and "/" or folder) or ""
end

--- Becomes the shell that does it: signals reach it directly, and it is what the caller waits for.
function M.run(args)
  ffi.cdef "int execvp(const char *file, const char *const argv[]);"
  local words = { "sh", "-c", SCRIPT, "regolith-dev", os.getenv "REGOLITH_DEV_DIR" or ".regolith/dev",
    folder_of("regolith", package.path, "/regolith/init%.lua$"),
    folder_of("regolith.core", package.cpath, "/regolith/core%.so$") }
  for _, word in ipairs(args.words) do words[#words + 1] = word end
  local argv = ffi.new("const char *[?]", #words + 1)
  for i, word in ipairs(words) do argv[i - 1] = word end
  ffi.C.execvp("sh", argv)
  return 1, "there is no shell"
end

return M
