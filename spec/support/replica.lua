-- SPDX-License-Identifier: MIT
-- A primary and its replica of a spec's own: two private servers, the second replicating from the first
-- by GTID over the loopback interface.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local M = {}

---@class Pair
---@field primary Servers
---@field replica Servers
---@field sql { primary: regolith.Session, replica: regolith.Session } as root, on each server alone
local Pair = {}
Pair.__index = Pair

--- What the two kinds of server call the same.
local MARIADB = {
  flags = "", replica_flags = "--skip-log-slave-updates --read-only=0",
  stop = "STOP SLAVE SQL_THREAD", go_on = "START SLAVE SQL_THREAD", start = "START SLAVE",
  reset = "RESET MASTER",
  written = "@@global.gtid_binlog_pos", has = "@@global.gtid_slave_pos = '%s'",
  follow = "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%d, "
    .. "MASTER_USER='copier', MASTER_PASSWORD='copier', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1",
}
local MYSQL = {
  flags = "--gtid-mode=ON --enforce-gtid-consistency=ON", replica_flags = "--read-only=0 --relay-log-recovery=ON",
  stop = "STOP REPLICA SQL_THREAD", go_on = "START REPLICA SQL_THREAD", start = "START REPLICA",
  reset = "RESET BINARY LOGS AND GTIDS", written = "@@global.gtid_executed",
  has = "GTID_SUBSET('%s', @@global.gtid_executed)",
  follow = "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%d, SOURCE_USER='copier', "
    .. "SOURCE_PASSWORD='copier', SOURCE_AUTO_POSITION=1, SOURCE_CONNECT_RETRY=1, GET_SOURCE_PUBLIC_KEY=1",
}
local words

local function flags(id, more)
  return string.format("--log-bin=bin --server-id=%d --binlog-format=ROW %s %s", id, words.flags, more or "")
end

--- Runs a statement that pools do not take.
local function administer(session, text)
  return must(session:connection(function(c) return must(c:query(text)) end))
end

--- On one of the two: "primary" or "replica".
function Pair:run(which, text) return administer(self.sql[which], text) end

--- Has the replica apply nothing more for now / go on.
function Pair:hold() self:run("replica", words.stop) end
function Pair:go_on() self:run("replica", words.go_on) end

--- Waits until the replica has everything.
function Pair:catch_up()
  local at = self:run("primary", "SELECT " .. words.written .. " AS at")[1].at
  local question = "SELECT " .. words.has:format(at) .. " AS has"
  faults.await("the replica", function() return self:run("replica", question)[1].has == 1 end)
end

--- A counter of a server's own.
function Pair:status(which, name)
  return tonumber(self:run(which, "SHOW GLOBAL STATUS LIKE '" .. name .. "'")[1].Value)
end

--- An ORM on both, with its tables made and there on both. `pool`: further options of the pool.
---@param entities regolith.Entity[]
---@param pool? table
---@param more? table
function Pair:open(entities, pool, more)
  local default = {
    url = self.primary:mysql_url(), max_replica_lag_ms = 600000, replicas = { east = self.replica:mysql_url() },
  }
  for option, v in pairs(pool or {}) do default[option] = v end
  local config = { mysql = { default = default }, entities = entities, timeout_ms = 20000 }
  for option, v in pairs(more or {}) do config[option] = v end
  local orm = must(regolith.open(config))
  self.orms[#self.orms + 1] = orm
  must(orm:schema_apply { destructive = true })
  self:catch_up()
  return orm
end

local function connect(servers)
  local orm = must(regolith.open { mysql = servers:mysql_url(), entities = {} })
  return orm, orm:session()
end

--- The spec's own connections to a server that was killed and started.
function Pair:reconnect(which)
  self.admins[which]:close()
  self.admins[which], self.sql[which] = connect(self[which])
end

--- Starts both.
---@return Pair
function M.pair(purpose)
  local self = setmetatable({ orms = {}, sql = {}, admins = {} }, Pair)
  words = support.is_mariadb() and MARIADB or MYSQL
  self.port = faults.free_port()
  self.primary = faults.servers(purpose .. "-p",
    flags(1, "--skip-networking=0 --bind-address=127.0.0.1 --port=" .. self.port))
  self.replica = faults.servers(purpose .. "-r", flags(2, words.replica_flags))
  for _, which in ipairs { "primary", "replica" } do
    self.admins[which], self.sql[which] = connect(self[which])
  end
  self:run("primary", words.reset)
  self:run("replica", words.reset)
  self:run("primary", "CREATE USER copier@'127.0.0.1' IDENTIFIED BY 'copier'")
  self:run("primary", "GRANT REPLICATION SLAVE ON *.* TO copier@'127.0.0.1'")
  self:run("replica", string.format(words.follow, self.port))
  self:run("replica", words.start)
  self:catch_up()
  return self
end

--- Closes what was opened and removes both servers.
function Pair:remove()
  for _, orm in ipairs(self.orms) do
    if getmetatable(orm).__name then orm:close() end
  end
  for which, session in pairs(self.sql) do
    session:close()
    self.admins[which]:close()
  end
  self.replica:remove()
  self.primary:remove()
end

return M
