-- SPDX-License-Identifier: MIT
-- Durable callbacks: a name, a payload and perhaps a key, written as a row in the transaction whose
-- outcome they follow, and run by a worker at least once. Those of one key run one after the other, in
-- the order in which they were written; one that has failed for good holds up those behind it until a
-- person replays or drops it.
--
-- A row is WAITING until it is due, then claimed for a while by one worker, and deleted when its handler
-- has returned; or DEAD. Claims are made under one row's lock, so that two workers never hold two rows of
-- one key. A worker that dies leaves a claim that runs out.

local errors = require "regolith.err"
local loop = require "regolith.loop"
local native = require "regolith.native"
local options = require "regolith.options"
local suggest = require "regolith.suggest"

local M = {}

local TABLE = "_regolith_callbacks"
--- The row whose lock serialises claims.
local LOCK = "lock"
local NO_SUCH_TABLE = 1146
local NAME_MAX, KEY_MAX, ERROR_MAX = 128, 190, 1000

local MAKE = {
  "CREATE TABLE IF NOT EXISTS `" .. TABLE .. "` ("
    .. "`number` BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,"
    .. "`uid` CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,"
    .. "`name` VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,"
    .. "`key` VARCHAR(190) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,"
    .. "`payload` LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,"
    .. "`state` VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,"
    .. "`tries` INT UNSIGNED NOT NULL,"
    .. "`due` DATETIME(6) NOT NULL,"
    .. "`claim` CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NULL,"
    .. "`claimed_until` DATETIME(6) NULL,"
    .. "`error` VARCHAR(1024) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,"
    .. "`at` DATETIME(6) NOT NULL,"
    .. "UNIQUE KEY `uid` (`uid`), KEY `line` (`key`,`number`), KEY `due` (`state`,`due`)) ENGINE=InnoDB",
  "INSERT IGNORE INTO `" .. TABLE .. "` (`uid`,`name`,`payload`,`state`,`tries`,`due`,`at`) "
    .. "VALUES ('" .. LOCK .. "','','null','lock',0,UTC_TIMESTAMP(6),UTC_TIMESTAMP(6))",
}

--- A fresh identity; the server makes it.
local UID = "REPLACE(UUID(),'-','')"

local ADD = { key = function(v)
  if type(v) ~= "string" and type(v) ~= "number" then return "must be a string or a number" end
  if #tostring(v) > KEY_MAX then return "must have at most " .. KEY_MAX .. " bytes" end
end, delay_ms = options.integer(0, 4294967295), pool = options.name }

-- ---- the table ----------------------------------------------------------------------------------

--- Makes the table of a pool on a connection of its own: a CREATE TABLE would commit what is open.
local function make(orm, pool)
  if orm._callback_tables[pool] then return true end
  local session = orm:session()
  local ok, fault = session:connection(pool, function(conn)
    for _, text in ipairs(MAKE) do
      local done, why = conn:execute(text)
      if not done then return nil, why end
    end
    return true
  end)
  session:close()
  if not ok then return nil, fault end
  orm._callback_tables[pool] = true
  return true
end

local function key_text(key)
  if type(key) == "number" then return key % 1 == 0 and string.format("%.0f", key) or tostring(key) end
  return key
end

local function check_name(orm, name, level)
  if type(name) ~= "string" or name == "" or #name > NAME_MAX then
    error("a callback's name is text of 1 to " .. NAME_MAX .. " bytes", level + 1)
  end
  if orm._callbacks[name] == nil then
    error(string.format("there is no callback '%s' among those of regolith.open%s", name,
      suggest.hint(name, orm._callbacks)), level + 1)
  end
end

local INSERT = "INSERT INTO `" .. TABLE .. "` (`uid`,`name`,`key`,`payload`,`state`,`tries`,`due`,`at`) VALUES (" .. UID
  .. ",?,?,?,'waiting',0,UTC_TIMESTAMP(6)+INTERVAL ? MICROSECOND,UTC_TIMESTAMP(6))"

--- Writes a callback through `scope`: what runs statements in the transaction that the callback shall
--- follow. Without one it is written at once, by itself.
---@param session regolith.Session
---@param scope { execute: fun(self: any, sql: string, ...: any): any, any }?
---@param name string of a handler that regolith.open was given
---@param payload any what JSON can hold
---@param opts? { key: string|number?, delay_ms: integer?, pool: string? }
---@param level? integer of the caller to blame [2]
---@return number? number of the callback
---@return regolith.Err? err
function M.add(session, scope, name, payload, opts, level)
  level = level or 2
  local orm = session._orm
  check_name(orm, name, level)
  opts = options.require("callback '" .. name .. "'", opts, ADD, level + 1)
  local text, why = native.json_encode(payload == nil and native.null or payload)
  if not text then error(string.format("the payload of callback '%s' is no JSON: %s", name, why), level) end
  local pool = opts.pool or "default"
  local ok, fault = make(orm, pool)
  if not ok then return errors.results(fault) end
  local key, delay_us = key_text(opts.key), (opts.delay_ms or 0) * 1000
  local done
  if scope then
    done, fault = scope:execute(INSERT, name, key, text, delay_us)
  else
    done, fault = session:_execute_beside(pool, INSERT, name, key, text, delay_us)
  end
  if not done then
    if fault.errno == NO_SUCH_TABLE then orm._callback_tables[pool] = nil end
    return errors.results(fault)
  end
  return done.insert_id
end

-- ---- the worker ---------------------------------------------------------------------------------

---@class regolith.CallbackWorker
---@field _orm regolith.Orm
---@field _opts table
---@field _names string[] handlers that run here
---@field _claim string who claims
local Worker = { __name = "regolith.CallbackWorker" }
Worker.__index = Worker

local OPTIONS = {
  pool = options.name, batch = options.integer(1, 1000), lease_s = options.seconds(86400 * 365),
  max_tries = options.integer(1, 1000000),
  first_backoff_ms = options.integer(1, 4294967295), max_backoff_ms = options.integer(1, 4294967295),
  on_dead = options.func, on_error_report = options.func,
}
local DEFAULTS = { pool = "default", batch = 8, lease_s = 60, max_tries = 10, first_backoff_ms = 1000,
  max_backoff_ms = 600000 }

--- A worker that runs the handlers of this orm.
---@param orm regolith.Orm
---@param given table?
---@return regolith.CallbackWorker
function M.worker(orm, given)
  given = options.require("callback_worker", given, OPTIONS)
  local opts, names = {}, {}
  for name, v in pairs(DEFAULTS) do opts[name] = given[name] or v end
  opts.on_dead, opts.on_error_report = given.on_dead, given.on_error_report
  for name, handler in pairs(orm._callbacks) do
    if type(handler) == "function" then names[#names + 1] = name end
  end
  table.sort(names)
  return setmetatable({ _orm = orm, _opts = opts, _names = names, _session = orm:session(),
    _totals = { done = 0, failed = 0, dead = 0 } }, Worker)
end

--- What is due. The clock goes on between statements: a claim that runs out after bury has looked is for the
--- next round to bury, not to be taken once more.
local SELECT = "SELECT c.`number`,c.`uid`,c.`name`,c.`key`,c.`payload`,c.`tries`,c.`at` FROM `" .. TABLE .. "` c "
  .. "WHERE c.`state`='waiting' AND c.`due`<=UTC_TIMESTAMP(6) AND c.`name` IN (?) "
  .. "AND (c.`claimed_until` IS NULL OR (c.`claimed_until`<UTC_TIMESTAMP(6) AND c.`tries`<?)) "
  .. "AND (c.`key` IS NULL OR NOT EXISTS (SELECT 1 FROM `" .. TABLE .. "` e "
  .. "WHERE e.`key`=c.`key` AND e.`number`<>c.`number` "
  .. "AND (e.`number`<c.`number` OR e.`claimed_until`>=UTC_TIMESTAMP(6)))) ORDER BY c.`number` LIMIT ?"

--- Statements one after the other on a connection; the last one's answer, or nil and the first fault.
local function all(...)
  local answer
  for i = 1, select("#", ...) do
    local fault
    answer, fault = select(i, ...)()
    if not answer then return nil, fault end
  end
  return answer
end

local function numbers_of(rows)
  local numbers = {}
  for i, row in ipairs(rows) do numbers[i] = row.number end
  return numbers
end

--- A name of its own for each claim: what an earlier one of the same worker did too late is refused.
local function new_claim(self, conn)
  local rows, fault = conn:query("SELECT " .. UID .. " AS uid")
  if not rows then return nil, fault end
  self._claim = rows[1].uid
  return true
end

--- Those that nobody got to the end of in max_tries are dead. Rows are written by number only, here and
--- everywhere: a search that locks would wait for transactions that have not committed theirs.
local function bury(conn, opts)
  local rows, fault = conn:query("SELECT `number` FROM `" .. TABLE .. "` WHERE `state`='waiting' AND `tries`>=? "
    .. "AND `claimed_until`<UTC_TIMESTAMP(6)", opts.max_tries)
  if not rows then return nil, fault end
  if #rows == 0 then return true end
  return conn:execute("UPDATE `" .. TABLE .. "` SET `state`='dead',`claim`=NULL,`claimed_until`=NULL,"
    .. "`error`='every worker that ran it ended before it did' WHERE `number` IN (?)", numbers_of(rows))
end

--- What was claimed before may be what its worker died of, so it is claimed alone.
local function apart(rows)
  local some = {}
  for i, row in ipairs(rows) do
    if row.tries > 0 and i > 1 then break end
    some[i] = row
    if row.tries > 0 then break end
  end
  return some
end

--- In one transaction: the lock, what is due, and the claim.
local function claim_on(self, conn)
  local opts, rows = self._opts, nil
  local lease_us = math.floor(opts.lease_s * 1e6)
  local ok, fault = all(
    function() return new_claim(self, conn) end,
    function() return conn:execute "START TRANSACTION" end,
    function() return conn:query("SELECT 1 FROM `" .. TABLE .. "` WHERE `uid`=? FOR UPDATE", LOCK) end,
    function() return bury(conn, opts) end,
    function()
      local why
      rows, why = conn:query(SELECT, self._names, opts.max_tries, opts.batch)
      rows = rows and apart(rows)
      return rows, why
    end,
    function()
      if #rows == 0 then return true end
      return conn:execute("UPDATE `" .. TABLE .. "` SET `claim`=?,`tries`=`tries`+1,"
        .. "`claimed_until`=UTC_TIMESTAMP(6)+INTERVAL ? MICROSECOND WHERE `number` IN (?)", self._claim, lease_us,
        numbers_of(rows))
    end,
    function() return conn:execute "COMMIT" end)
  if not ok then return nil, fault end
  return rows
end

--- Only the first of a key may run: the others become due when it is done.
local function claim(self)
  local rows, fault = self._session:connection(self._opts.pool, function(conn) return claim_on(self, conn) end)
  if not rows and fault.errno == NO_SUCH_TABLE then return {} end
  return rows, fault
end

local function error_text(fault)
  local text = errors.text(fault)
  if #text > ERROR_MAX then text = text:sub(1, ERROR_MAX):gsub("[\192-\255]?[\128-\191]*$", "") end
  return native.json_encode(text) and text or text:gsub("[\128-\255]", "?")
end

local function backoff_us(opts, tries)
  local ms = math.min(opts.first_backoff_ms * 2 ^ math.min(tries, 40), opts.max_backoff_ms)
  return math.floor(ms * 1000 * (0.75 + math.random() / 4))
end

local function report(self, fault, count)
  if self._opts.on_error_report then self._opts.on_error_report(fault, count) end
end

--- Runs a handler: true, or nil and why not. One that returns false or nil and a message has failed.
local function call(self, row, info)
  local payload, why = native.json_decode(row.payload)
  if payload == nil then return nil, why end
  if payload == native.null then payload = nil end
  local ok, answer, message = pcall(self._orm._callbacks[row.name], payload, info)
  if not ok then return nil, answer end
  if answer == false or (answer == nil and message ~= nil) then return nil, message or "the handler returned false" end
  return true
end

local function on_row(self, what, row, ...)
  local n = select("#", ...)
  local words = { ... }
  words[n + 1], words[n + 2] = row.number, self._claim
  return self._session:execute({ what .. " WHERE `number`=? AND `claim`=?", pool = self._opts.pool },
    unpack(words, 1, n + 2))
end

--- Writes down that a handler failed: it is due again later, or dead.
local function fail(self, row, info, why)
  local opts, totals = self._opts, self._totals
  local text = error_text(why)
  totals.failed = totals.failed + 1
  if info.tries < opts.max_tries then
    report(self, errors.new("CALLBACK", string.format("callback %s: %s", row.name, text)), info.tries)
    return on_row(self, "UPDATE `" .. TABLE .. "` SET `claim`=NULL,`claimed_until`=NULL,`error`=?,"
      .. "`due`=UTC_TIMESTAMP(6)+INTERVAL ? MICROSECOND", row, text, backoff_us(opts, row.tries))
  end
  local ok, fault = on_row(self, "UPDATE `" .. TABLE .. "` SET `state`='dead',`claim`=NULL,`claimed_until`=NULL,"
    .. "`error`=?", row, text)
  if not ok then return nil, fault end
  if ok.affected == 0 then return true end -- the claim had run out: it is another worker's now
  totals.dead = totals.dead + 1
  info.error = text
  errors.tell(self._orm._on_error, "on_dead", opts.on_dead, info)
  return true
end

local function run_row(self, row)
  local info = { name = row.name, key = row.key, id = row.uid, number = row.number, tries = row.tries + 1, at = row.at }
  local ok, why = call(self, row, info)
  if not ok then return fail(self, row, info, why) end
  self._totals.done = self._totals.done + 1
  return on_row(self, "DELETE FROM `" .. TABLE .. "`", row)
end

--- Gives back what there is no time for before the claim runs out.
local function give_back(self, rows, from)
  local rest = {}
  for i = from, #rows do rest[#rest + 1] = rows[i].number end
  return self._session:execute({ "UPDATE `" .. TABLE .. "` SET `claim`=NULL,`claimed_until`=NULL,`tries`=`tries`-1 "
    .. "WHERE `claim`=? AND `number` IN (?)", pool = self._opts.pool }, self._claim, rest)
end

--- Runs what is due, a few callbacks at most: how many handlers were called. Errors of handlers are
--- written down; an error of the database is returned, and what was claimed is tried again later.
---@return number? ran
---@return regolith.Err? err
function Worker:step()
  if #self._names == 0 then return 0 end
  local started = os.time()
  local rows, fault = claim(self)
  if not rows then return errors.results(fault) end
  for i, row in ipairs(rows) do
    if i > 1 and os.difftime(os.time(), started) > self._opts.lease_s / 2 then
      give_back(self, rows, i)
      return i - 1
    end
    local ok
    ok, fault = run_row(self, row)
    if not ok then return errors.results(fault) end
  end
  return #rows
end

--- Totals since the worker was made.
---@return { done: number, failed: number, dead: number }
function Worker:stats()
  local totals = self._totals
  return { done = totals.done, failed = totals.failed, dead = totals.dead }
end

--- Runs callbacks until stop() is called; with `signals` until SIGINT or SIGTERM too: the handler under
--- way comes to its end.
---@param opts? { signals: boolean?, idle_s: number?, on_step: fun(ran: number)? }
---@return true? ok
---@return regolith.Err? err
function Worker:run(opts)
  return loop.run(self, { { step = function() return self:step() end, name = "callbacks" } }, opts,
    self._opts.on_error_report)
end

--- Ends run() after the callbacks under way.
function Worker:stop() self._stopped = true end

function Worker:close()
  if self._session then self._session:close() end
  self._session = nil
end

-- ---- administration -----------------------------------------------------------------------------

local LIST = { state = options.one_of("waiting", "dead"), limit = options.integer(1, 1000000), pool = options.name }
local POOL = { pool = options.name }

--- Runs a statement in a session of its own; a missing table is an empty one.
local function ask(orm, how, empty, pool, text, ...)
  local session = orm:session()
  local answer, fault = session[how](session, { text, pool = pool or "default" }, ...)
  session:close()
  if answer then return answer end
  if fault.errno == NO_SUCH_TABLE then return empty end
  return nil, fault
end

--- Does something to one dead callback, or to all that are dead now: to how many.
local function on_dead(orm, pool, number, what)
  local numbers, n = { number }, 0
  if number == "all" then
    local rows, fault = ask(orm, "query", {}, pool, "SELECT `number` FROM `" .. TABLE .. "` WHERE `state`='dead'")
    if not rows then return nil, fault end
    numbers = numbers_of(rows)
  end
  for from = 1, #numbers, 500 do
    local some = { unpack(numbers, from, math.min(from + 499, #numbers)) }
    local answer, fault = ask(orm, "execute", { affected = 0 }, pool,
      what .. " WHERE `number` IN (?) AND `state`='dead'", some)
    if not answer then return nil, fault end
    n = n + answer.affected
  end
  return n
end

local function check_number(what, number, level)
  if number ~= "all" and options.integer(1)(number) then
    error(what .. " takes the number of a callback, or \"all\"", level + 1)
  end
end

local LISTED = "SELECT `number`,`uid` AS `id`,`name`,`key`,`payload`,`state`,`tries`,`due`,`error`,`at`,"
  .. "`claimed_until`>=UTC_TIMESTAMP(6) AS `running` FROM `" .. TABLE .. "` WHERE "

---@param Orm table
function M.install(Orm)
  --- Makes a callback follow nothing but this call: it is durable when this returns.
  ---@param name string
  ---@param payload any
  ---@param opts? { key: string|number?, delay_ms: integer?, pool: string? }
  ---@return number? number
  ---@return regolith.Err? err
  function Orm:callback(name, payload, opts)
    local session = self:session()
    local called, number, fault = pcall(M.add, session, nil, name, payload, opts, 4)
    session:close()
    if not called then error(number, 0) end
    if not number then return errors.results(fault) end
    return number
  end

  --- A worker that runs the callbacks' handlers.
  ---@param opts? table
  ---@return regolith.CallbackWorker
  function Orm:callback_worker(opts) return M.worker(self, opts) end

  --- Callbacks, oldest first: number, id, name, key, payload (JSON), state, tries, due, error, at.
  ---@param opts? { state: "waiting"|"dead"|nil, limit: integer?, pool: string? }
  ---@return table[]? callbacks
  ---@return regolith.Err? err
  function Orm:callbacks(opts)
    opts = options.require("callbacks", opts, LIST)
    local states = opts.state and { opts.state } or { "waiting", "dead" }
    local rows, fault = ask(self, "query", {}, opts.pool, LISTED .. "`state` IN (?) ORDER BY `number` LIMIT ?",
      states, opts.limit or 100)
    if not rows then return errors.results(fault) end
    for _, row in ipairs(rows) do row.running = row.running == 1 end
    return rows
  end

  --- One callback, or nil.
  ---@param number integer
  ---@param opts? { pool: string? }
  ---@return table? callback
  ---@return regolith.Err? err
  function Orm:callback_show(number, opts)
    check_number("callback_show", number, 2)
    opts = options.require("callback_show", opts, POOL)
    local rows, fault = ask(self, "query", {}, opts.pool, LISTED .. "`number`=? AND `state`<>'lock'", number)
    if not rows then return errors.results(fault) end
    return rows[1]
  end

  --- How many wait, are dead, and the age in seconds of the oldest that waits and is due.
  ---@param opts? { pool: string? }
  ---@return { waiting: number, dead: number, oldest_s: number }? stats
  ---@return regolith.Err? err
  function Orm:callback_stats(opts)
    opts = options.require("callback_stats", opts, POOL)
    local rows, fault = ask(self, "query", { {} }, opts.pool, "SELECT COUNT(CASE WHEN `state`='waiting' THEN 1 END) "
      .. "AS waiting, COUNT(CASE WHEN `state`='dead' THEN 1 END) AS dead, TIMESTAMPDIFF(SECOND,MIN(CASE WHEN "
      .. "`state`='waiting' AND `due`<=UTC_TIMESTAMP(6) THEN `due` END),UTC_TIMESTAMP(6)) AS oldest_s FROM `" .. TABLE
      .. "`")
    if not rows then return errors.results(fault) end
    local row = rows[1]
    return { waiting = row.waiting or 0, dead = row.dead or 0, oldest_s = row.oldest_s or 0 }
  end

  --- Has a dead callback (or all of them) run again, from its first try on: how many.
  ---@param number integer|"all"
  ---@param opts? { pool: string? }
  ---@return number? replayed
  ---@return regolith.Err? err
  function Orm:callback_retry(number, opts)
    check_number("callback_retry", number, 2)
    opts = options.require("callback_retry", opts, POOL)
    local n, fault = on_dead(self, opts.pool, number,
      "UPDATE `" .. TABLE .. "` SET `state`='waiting',`tries`=0,`due`=UTC_TIMESTAMP(6)")
    if not n then return errors.results(fault) end
    return n
  end

  --- Gives a dead callback (or all of them) up; those of its key behind it run again: how many.
  ---@param number integer|"all"
  ---@param opts? { pool: string? }
  ---@return number? dropped
  ---@return regolith.Err? err
  function Orm:callback_drop(number, opts)
    check_number("callback_drop", number, 2)
    opts = options.require("callback_drop", opts, POOL)
    local n, fault = on_dead(self, opts.pool, number, "DELETE FROM `" .. TABLE .. "`")
    if not n then return errors.results(fault) end
    return n
  end
end

return M
