-- SPDX-License-Identifier: MIT
-- What fault specs stand on besides a world: servers of their own that may be killed, and further
-- processes that run a program of spec/support/programs.

local ffi = require "ffi"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local M = {}

ffi.cdef [[
int posix_spawnp(int *pid, const char *file, const void *actions, const void *attr, char *const argv[],
                 char *const envp[]);
int waitpid(int pid, int *status, int options);
int kill(int pid, int signal);
int poll(void *fds, unsigned long n, int timeout_ms);
extern char **environ;
typedef struct { long sec, nsec; } rgspec_time;
int clock_gettime(int clock, rgspec_time *t);
typedef struct { unsigned short family; char path[108]; } rgspec_unix;
typedef struct { unsigned short family; unsigned char port[2], address[4]; char zero[8]; } rgspec_inet;
int bind(int fd, const void *address, unsigned len);
int socket(int domain, int type, int protocol);
int connect(int fd, const void *address, unsigned len);
long read(int fd, void *p, unsigned long n);
long write(int fd, const void *p, unsigned long n);
int close(int fd);
]]

local KILL, TERM, STOP, CONT = 9, 15, 19, 18
local SIGNALS = { KILL = KILL, TERM = TERM, STOP = STOP, CONT = CONT }
local WNOHANG = 1
--- A sanitizer makes everything slower.
local PATIENCE_S = 30

local root = os.getenv "REGOLITH_ROOT" or "."

local clock = ffi.new "rgspec_time"

--- Seconds of a clock that only goes forward.
function M.now()
  ffi.C.clock_gettime(1, clock)
  return tonumber(clock.sec) + tonumber(clock.nsec) / 1e9
end

--- Waits a moment; for loops that ask something again and again.
function M.pause(ms) ffi.C.poll(nil, 0, ms) end

--- Waits until fn gives something true, and gives that; raises with `what` when it never does.
function M.await(what, fn, seconds)
  local deadline = M.now() + (seconds or PATIENCE_S)
  repeat
    local v = fn()
    if v then return v end
    M.pause(5)
  until M.now() > deadline
  error("waited in vain: " .. what, 2)
end

--- A TCP port that nobody has, below those that clients are given.
---@return integer
function M.free_port()
  local address = ffi.new("rgspec_inet", { family = 2, address = { 127, 0, 0, 1 } })
  for i = 1, 100 do
    local port = 15000 + math.floor(M.now() * 1000000 + i * 7919) % 15000
    address.port[0], address.port[1] = math.floor(port / 256), port % 256
    local fd = ffi.C.socket(2, 1, 0)
    local free = ffi.C.bind(fd, address, ffi.sizeof(address)) == 0
    ffi.C.close(fd)
    if free then return port end
  end
  error "there is no free port"
end

local function read_file(path)
  local file = io.open(path, "r")
  if not file then return nil end
  local text = file:read "*a"
  file:close()
  return text
end

function M.write_file(path, text)
  local file = must(io.open(path, "w"))
  file:write(text)
  file:close()
end

local function quote(word) return "'" .. tostring(word):gsub("'", "'\\''") .. "'" end

-- ---- processes ----------------------------------------------------------------------------------

---@class Process
---@field pid integer
---@field path string where its output goes
local Process = {}
Process.__index = Process

--- Everything it has said so far.
function Process:output() return read_file(self.path) or "" end

--- Is it still there? Takes its status when it is not.
function Process:running()
  if self.status then return false end
  local status = ffi.new "int[1]"
  if ffi.C.waitpid(self.pid, status, WNOHANG) ~= self.pid then return true end
  self.status = status[0]
  return false
end

function Process:signal(name)
  if self:running() then ffi.C.kill(self.pid, SIGNALS[name]) end
end

--- Waits for its end: true when it ended well, and its output.
function Process:wait(seconds)
  local ok = pcall(M.await, "the end of a process", function() return not self:running() end, seconds)
  local text = self:output()
  if not ok then
    self:kill()
    error("a process did not end: " .. text, 2)
  end
  os.remove(self.path)
  return self.status == 0, text
end

--- Waits for a line that it prints.
function Process:await(pattern, seconds)
  return M.await("'" .. pattern .. "' in the output of a process", function()
    local found = self:output():match(pattern)
    if not found and not self:running() then error("a process ended early: " .. self:output(), 0) end
    return found
  end, seconds)
end

--- Ends it without a word; fn may look at its output before that goes.
---@param fn? fun()
function Process:kill_and(fn)
  self:signal "KILL"
  M.await("the end of a killed process", function() return not self:running() end)
  if fn then fn() end
  os.remove(self.path)
end

function Process:kill() self:kill_and() end

--- Runs a command of the shell.
local function launch(command)
  local self = setmetatable({ path = os.tmpname() }, Process)
  local texts = { "sh", "-c", "exec env " .. command .. " </dev/null >" .. quote(self.path) .. " 2>&1" }
  local argv, pid = ffi.new("char *[4]"), ffi.new "int[1]"
  for i, text in ipairs(texts) do argv[i - 1] = ffi.cast("char *", text) end
  local rc = ffi.C.posix_spawnp(pid, "sh", nil, nil, argv, ffi.C.environ)
  must(rc == 0, "no process could be started")
  self.pid = pid[0]
  return self
end

--- Runs spec/support/programs/<name>.lua, or the program at a path, with further words and environment.
---@param name string
---@param env? table<string, string|number>
---@return Process
function M.spawn(name, env, ...)
  local program = name:find "/" and name or root .. "/spec/support/programs/" .. name .. ".lua"
  local words = {}
  for variable, value in pairs(env or {}) do words[#words + 1] = variable .. "=" .. quote(value) end
  words[#words + 1] = "luajit " .. quote(program)
  for i = 1, select("#", ...) do words[#words + 1] = quote((select(i, ...))) end
  return launch(table.concat(words, " "))
end

---@class Proxy in front of MySQL's socket (programs/proxy.lua)
local Proxy = {}
Proxy.__index = Proxy

--- What it does from now on; never a half of the word, whenever it looks.
---@param word string
function Proxy:say(word)
  M.write_file(self._words .. ".new", word .. "\n")
  must(os.rename(self._words .. ".new", self._words))
end

--- What it has told so far.
function Proxy:output() return self._process:output() end

--- A database by way of it.
---@param db string
---@param more? string further options, each after "&"
function Proxy:url(db, more) return string.format("mysql+unix://%s?user=root&db=%s%s", self._socket, db, more or "") end

function Proxy:stop()
  self._process:kill()
  os.remove(self._socket)
  os.remove(self._words)
end

--- Starts one that hands everything on.
---@return Proxy
function M.proxy()
  local proxy = setmetatable({ _socket = os.tmpname(), _words = os.tmpname() }, Proxy)
  os.remove(proxy._socket)
  proxy:say "pass"
  proxy._process = M.spawn("proxy", nil, proxy._socket, os.getenv "REGOLITH_MYSQL_SOCKET", proxy._words)
  proxy._process:await "ready"
  return proxy
end

-- ---- servers ------------------------------------------------------------------------------------

---@class Servers a MariaDB and a Redis of a spec's own
---@field name string
---@field mysql_socket string
---@field redis_socket string
---@field orms table[]
local Servers = {}
Servers.__index = Servers

--- What survives a kill, though not a power cut.
local FLAGS = "REGOLITH_MYSQL_FLAGS=--innodb-flush-log-at-trx-commit=2 "
  .. "REGOLITH_REDIS_FLAGS='--appendonly yes --appendfsync no'"

local script_path = quote(root .. "/scripts/servers") .. " "

local own_pid = io.open("/proc/self/stat"):read "*n"

--- Starts what is down of them; in vain when this process has gone meanwhile.
function Servers:start()
  local text, ok = support.shell(string.format("%s start %s && { kill -0 %d || %s rm %s; }", self.script, self.name,
    own_pid, self.script, self.name))
  must(ok, text)
end

function Servers:pid(which)
  local folder = os.getenv "REGOLITH_RUN_DIR" or root .. "/.regolith"
  local text = read_file(string.format("%s/servers/%s/%s.pid", folder, self.name, which))
  return text and tonumber(text:match "^%d+")
end

local function is_alive(pid)
  local stat = read_file("/proc/" .. pid .. "/stat")
  local state = stat and stat:match "^.*%)%s(%a)"
  return state ~= nil and state ~= "Z"
end

--- Do all threads of a process stand still?
local function is_stopped(pid)
  for line in support.shell("cat /proc/" .. pid .. "/task/*/stat"):gmatch "[^\n]+" do
    if line:match "^.*%)%s(%a)" ~= "T" then return false end
  end
  return true
end

--- Has "mysql" or "redis" stand still.
function Servers:stop(which)
  local pid = must(self:pid(which))
  ffi.C.kill(pid, STOP)
  M.await(which .. " to stand still", function() return is_stopped(pid) end)
end

--- Has it go on.
function Servers:continue(which) ffi.C.kill(must(self:pid(which)), CONT) end

--- kill -9, and waits until it is gone.
function Servers:kill(which)
  local pid = must(self:pid(which), which .. " does not run")
  ffi.C.kill(pid, KILL)
  M.await("the end of " .. which, function() return not is_alive(pid) end)
end

--- Asks it to end, and waits until it has.
function Servers:finish(which)
  local pid = must(self:pid(which), which .. " does not run")
  ffi.C.kill(pid, TERM)
  M.await("the end of " .. which, function() return not is_alive(pid) end)
end

function Servers:mysql_url(more)
  return string.format("mysql+unix://%s?user=root&db=regolith_test%s", self.mysql_socket, more or "")
end

function Servers:redis_url(more) return string.format("redis+unix://%s%s", self.redis_socket, more or "") end

--- An ORM on these servers with its tables made.
function Servers:open(entities, more)
  local config = { mysql = self:mysql_url(), redis = self:redis_url(), entities = entities, timeout_ms = 10000 }
  for option, v in pairs(more or {}) do config[option] = v end
  local orm = must(regolith.open(config))
  self.orms[#self.orms + 1] = orm
  must(orm:schema_apply { destructive = true })
  return orm
end

--- The environment of a process that uses these servers.
function Servers:env()
  return { REGOLITH_MYSQL_URL = self:mysql_url(), REGOLITH_REDIS_URL = self:redis_url() }
end

--- Closes the ORMs and removes the servers with their data.
function Servers:remove()
  for _, orm in ipairs(self.orms) do
    if getmetatable(orm).__name then orm:close() end
  end
  self.keeper:signal "TERM"
  self.keeper:wait()
end

--- What survives a power cut.
local DURABLE = "REGOLITH_MYSQL_FLAGS=--innodb-flush-log-at-trx-commit=1 "
  .. "REGOLITH_REDIS_FLAGS='--appendonly yes --appendfsync always'"

--- New servers, empty and running. They go when this process ends, however it does. `flags`: further
--- words for MariaDB; `durable`: nothing is acknowledged before it is on the disk.
---@param purpose string
---@param flags? string
---@param durable? boolean
---@return Servers
function M.servers(purpose, flags, durable)
  local self = setmetatable({ name = "spec-" .. purpose .. "-" .. own_pid, orms = {} }, Servers)
  local more = flags and string.format("REGOLITH_MYSQL_FLAGS='--innodb-flush-log-at-trx-commit=2 %s' ", flags) or ""
  self.script = (durable and DURABLE or FLAGS) .. " " .. more .. script_path
  self.keeper = launch(self.script .. "run --temp " .. self.name .. " -- sh -c 'env; exec tail --pid=" .. own_pid
    .. " -f /dev/null'")
  self.mysql_socket = self.keeper:await "REGOLITH_MYSQL_SOCKET=([^\n]+)\n"
  self.redis_socket = self.keeper:await "REGOLITH_REDIS_SOCKET=([^\n]+)\n"
  return self
end

--- Has the server end every connection to a world's database.
---@param world World
function M.kill_connections(world)
  local function ids()
    return must(world.sql:query("SELECT id FROM information_schema.processlist WHERE db = ?", world.name))
  end
  for _, row in ipairs(ids()) do
    world.sql:connection(function(conn) return conn:execute("KILL " .. row.id) end)
  end
  M.await("the end of the connections", function() return #ids() == 0 end)
end

-- ---- Redis, byte by byte ------------------------------------------------------------------------

---@class Raw a connection of its own to Redis: any bytes in any argument, at socket speed
---@field fd integer
local Raw = {}
Raw.__index = Raw

local function read_some(self)
  local n = tonumber(ffi.C.read(self.fd, self.chunk, 65536))
  must(n > 0, "Redis closed the connection")
  self.buffer = self.buffer .. ffi.string(self.chunk, n)
end

local function take(self, n)
  while #self.buffer < n do read_some(self) end
  local bytes = self.buffer:sub(1, n)
  self.buffer = self.buffer:sub(n + 1)
  return bytes
end

local function take_line(self)
  while not self.buffer:find("\r\n", 1, true) do read_some(self) end
  local line = self.buffer:match "^(.-)\r\n"
  self.buffer = self.buffer:sub(#line + 3)
  return line
end

local function take_reply(self)
  local line = take_line(self)
  local kind, rest = line:sub(1, 1), line:sub(2)
  if kind == "+" then return rest end
  if kind == ":" then return tonumber(rest) end
  if kind == "-" then return nil, rest end
  local n = tonumber(rest)
  if n < 0 then return nil end
  if kind == "$" then return (take(self, n + 2):sub(1, n)) end
  local list = {}
  for i = 1, n do list[i] = take_reply(self) or false end
  return list
end

--- One command: its reply, or nil and the server's error.
function Raw:call(...)
  local n = select("#", ...)
  local parts = { "*" .. n .. "\r\n" }
  for i = 1, n do
    local word = tostring((select(i, ...)))
    parts[#parts + 1] = "$" .. #word .. "\r\n" .. word .. "\r\n"
  end
  local text = table.concat(parts)
  local at = 0
  while at < #text do
    local sent = tonumber(ffi.C.write(self.fd, ffi.cast("const char *", text) + at, #text - at))
    must(sent > 0, "Redis closed the connection")
    at = at + sent
  end
  return take_reply(self)
end

function Raw:close()
  ffi.C.close(self.fd)
  self.fd = -1
end

--- Connects to the Redis at a socket; to that of the specs when none is given.
---@param path? string
---@return Raw
function M.redis(path)
  path = path or must(os.getenv "REGOLITH_REDIS_SOCKET")
  local address = ffi.new "rgspec_unix"
  address.family = 1
  ffi.copy(address.path, path)
  local fd = ffi.C.socket(1, 1, 0)
  if ffi.C.connect(fd, address, ffi.sizeof "rgspec_unix") ~= 0 then
    ffi.C.close(fd)
    error("no connection to " .. path, 2)
  end
  return setmetatable({ fd = fd, buffer = "", chunk = ffi.new "char[65536]" }, Raw)
end

return M
