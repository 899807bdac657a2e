-- SPDX-License-Identifier: MIT
-- A Galera cluster of a spec's own: private servers that replicate to each other over the loopback interface.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local M = {}

local root = os.getenv "REGOLITH_ROOT" or "."
local PLACES = { "/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so",
  "/usr/lib64/galera/libgalera_smm.so" }

local function provider()
  for _, path in ipairs(PLACES) do
    local file = io.open(path)
    if file then
      file:close()
      return path
    end
  end
end

--- Why there can be no cluster, or nil.
function M.missing()
  if not provider() then return "Galera's library is not installed (galera-4)" end
  if not support.is_mariadb() then return "the server is not MariaDB" end
end

---@class Cluster
---@field nodes Servers[]
---@field sql regolith.Session[] as root, on each
local Cluster = {}
Cluster.__index = Cluster

--- Four ports in a row for each node (writesets, their catch-up, the state), all free a moment ago and beside
--- those that the system gives out, which begin at 32768.
local function ports(n)
  local first = tonumber((support.shell(string.format([[luajit -e '
    local ffi = require "ffi"
    ffi.cdef "int socket(int,int,int); int bind(int,const void*,unsigned); int close(int); int getpid(void);"
    local function free(port)
      local fd, a = ffi.C.socket(2, 1, 0), ffi.new("uint8_t[16]")
      a[0], a[2], a[3], a[4], a[7] = 2, math.floor(port / 256), port %% 256, 127, 1
      local ok = ffi.C.bind(fd, a, 16) == 0
      ffi.C.close(fd)
      return ok
    end
    math.randomseed(ffi.C.getpid())
    while true do
      local first, all = math.random(15000, 31000), true
      for port = first, first + %d do all = all and free(port) end
      if all then print(first) break end
    end']], 4 * n - 1))))
  local list = {}
  for i = 1, n do list[i] = must(first, "no free ports") + 4 * (i - 1) end
  return list
end

local function flags(library, port, first)
  local words = {
    "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2", "--wsrep-on=ON", "--wsrep-provider=" .. library,
    "--wsrep-cluster-name=rgspec", "--wsrep-sst-method=rgspec", "--wsrep-sst-donor-rejects-queries=OFF",
    "--wsrep-sst-receive-address=127.0.0.1:" .. port + 2, "--wsrep-node-address=127.0.0.1:" .. port,
    "--wsrep-cluster-address=gcomm://" .. (first and "127.0.0.1:" .. first or ""),
    string.format("--wsrep-provider-options=base_port=%d;gmcast.listen_addr=tcp://127.0.0.1:%d;"
      .. "ist.recv_addr=127.0.0.1:%d;gcache.size=32M;evs.suspect_timeout=PT30S;evs.inactive_timeout=PT60S",
      port, port, port + 1),
  }
  return table.concat(words, " ")
end

local function folder(node)
  return string.format("%s/servers/%s/mysql", os.getenv "REGOLITH_RUN_DIR" or root .. "/.regolith", node.name)
end

local function quote(text) return "'" .. text .. "'" end

--- Starts a cluster of n nodes. All of them begin with the data of the first: a node whose data know their
--- place in the cluster's history has only what came later sent.
---@return Cluster
function M.cluster(purpose, n)
  local self = setmetatable({ nodes = {}, sql = {}, orms = {} }, Cluster)
  local library, at = must(provider()), ports(n)
  local path = "PATH=" .. quote(root .. "/spec/support/galera") .. ":$PATH "
  for i = 1, n do
    local words = i == 1 and flags(library, at[1]) or nil
    self.nodes[i] = faults.servers(purpose .. i, words)
  end
  for i = 1, n do
    local node = self.nodes[i]
    node:finish "mysql"
    if i > 1 then
      must(select(2, support.shell(string.format("rm -rf %s && cp -r %s %s", folder(node), folder(self.nodes[1]),
        folder(node)))))
    end
    node.script = path .. "REGOLITH_MYSQL_FLAGS=" .. quote(flags(library, at[i], i > 1 and at[1] or nil)) .. " "
      .. "REGOLITH_REDIS_FLAGS='--appendonly yes --appendfsync no' " .. quote(root .. "/scripts/servers") .. " "
  end
  for i = 1, n do
    self.nodes[i]:start()
    self.orms[i] = must(regolith.open { mysql = self.nodes[i]:mysql_url(), entities = {} })
    self.sql[i] = self.orms[i]:session()
  end
  self:await_size(n)
  return self
end

--- Waits until all nodes are one cluster.
function Cluster:await_size(n)
  faults.await("a cluster of " .. n, function()
    for _, session in ipairs(self.sql) do
      local row = session:query("SHOW GLOBAL STATUS LIKE 'wsrep_cluster_size'")
      if not row or tonumber(row[1].Value) ~= n then return false end
    end
    return true
  end)
end

function Cluster:remove()
  for i = #self.nodes, 1, -1 do
    self.sql[i]:close()
    self.orms[i]:close()
    self.nodes[i]:remove()
  end
end

return M
