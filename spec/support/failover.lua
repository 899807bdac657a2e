-- SPDX-License-Identifier: MIT
-- Two Redis servers, the second a replica of the first, behind one socket: what a failover with a lost
-- tail looks like to clients. They end with the process that started them.

local faults = require "support.faults"
local support = require "support.init"

local must = support.must
local M = {}

---@class RedisPair
---@field folder string
---@field path string the socket that clients use
---@field servers table[]
local Pair = {}
Pair.__index = Pair

local own_pid = io.open("/proc/self/stat"):read "*n"

local function launch(folder)
  local program, port = folder .. "/server.sh", faults.free_port()
  faults.write_file(program, string.format([[
redis-server --port %d --bind 127.0.0.1 --unixsocket %s/redis.sock --dir %s --save '' --appendonly no \
  --repl-diskless-sync yes --repl-diskless-sync-delay 0 --daemonize no >%s/log 2>&1 &
redis=$!
echo $redis >%s/pid
tail --pid=%d -f /dev/null & keeper=$!
while kill -0 $redis 2>/dev/null && kill -0 $keeper 2>/dev/null; do sleep 0.3; done
kill -9 $redis $keeper 2>/dev/null
]], port, folder, folder, folder, folder, own_pid))
  os.execute("setsid sh " .. program .. " </dev/null >/dev/null 2>&1 &")
  return port
end

local function start(self, number)
  local folder = self.folder .. "/" .. number
  support.shell("mkdir -p " .. folder)
  local server = { port = launch(folder), folder = folder, socket = folder .. "/redis.sock" }
  self.servers[number] = server
  faults.await("a Redis", function()
    local ok, redis = pcall(faults.redis, server.socket)
    if ok then server.redis = redis end
    if not ok and support.shell("cat " .. folder .. "/log"):find "already in use" then -- somebody was faster
      os.remove(folder .. "/log")
      server.port = launch(folder)
    end
    return ok and redis:call "PING" == "PONG"
  end)
end

--- The servers' pids.
local function pid_of(server)
  local file = must(io.open(server.folder .. "/pid"))
  local pid = file:read "*n"
  file:close()
  return pid
end

--- Clients are led to this one from now on.
function Pair:lead(number)
  support.shell(string.format("ln -sfn %s %s", self.servers[number].socket, self.path))
end

function Pair:call(number, ...) return self.servers[number].redis:call(...) end

--- Waits until the replica has all that the first one has.
function Pair:caught_up()
  faults.await("the replica to have all", function()
    return (self:call(1, "WAIT", "1", "100") or 0) >= 1
      and self:call(2, "INFO", "replication"):find("master_link_status:up", 1, true)
  end)
end

--- The second one is a replica no more: what the first one takes from now on is lost to it.
function Pair:part() must(self:call(2, "REPLICAOF", "NO", "ONE")) end

--- The first one dies and the second takes its place.
function Pair:fail_over()
  support.shell("kill -9 " .. pid_of(self.servers[1]))
  self.servers[1].dead = true
  self:lead(2)
end

function Pair:remove()
  for _, server in ipairs(self.servers) do
    if server.redis then server.redis:close() end
    if not server.dead then support.shell("kill -9 " .. pid_of(server)) end
  end
  support.shell("rm -rf " .. self.folder)
end

---@return RedisPair
function M.pair()
  local folder = os.tmpname()
  os.remove(folder)
  local self = setmetatable({ folder = folder, path = folder .. "/redis.sock", servers = {} }, Pair)
  support.shell("mkdir -p " .. folder)
  start(self, 1)
  start(self, 2)
  must(self:call(2, "REPLICAOF", "127.0.0.1", self.servers[1].port))
  self:lead(1)
  self:caught_up()
  return self
end

return M
