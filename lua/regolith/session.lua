-- SPDX-License-Identifier: MIT
-- A session: the identity map and the unit of work of one request. Reading by id is here, by index in
-- lookup, along references in reference; writing in unit, raw SQL in raw. Confined to one coroutine at a
-- time.
--
-- Entities stand at places: a managed one at the engine's slot + 1, a new one at a negative number.
-- `_at` maps places to entities, `_new` the numbers of new ones; each type's `places` maps ids to places.

local errors = require "regolith.err"
local caches = require "regolith.cache.handle"
local entities = require "regolith.entity"
local locking = require "regolith.locking"
local log = require "regolith.log"
local native = require "regolith.native"
local options = require "regolith.options"
local outside = require "regolith.outside"
local record = require "regolith.record"
local shards = require "regolith.shards"
local spare = require "regolith.spare"

local clear = require "table.clear"
local new_table = require "table.new"

local C, ffi, err, done = native.C, native.ffi, native.err, native.done
local getmetatable, rawget, setmetatable, tonumber, type = getmetatable, rawget, setmetatable, tonumber, type
local HIT, ABSENT = tonumber(C.RG_GET_HIT), tonumber(C.RG_GET_ABSENT)
local ASK_LEAST = 8 -- rows, from where it is worth a call of its own
local NONE = {}
local u64p, new_view = ffi.typeof "const uint64_t *", ffi.typeof "rg_view"

---@class regolith.SessionType what a session knows of one type
---@field T regolith.Type
---@field number integer? nil: it has shards
---@field shards regolith.Shards?
---@field decode fun(row: ffi.cdata*): table
---@field fill fun(blank: table, row: ffi.cdata*): table
---@field refresh fun(e: table, row: ffi.cdata*)
---@field make fun(values: table): table, boolean
---@field mt table|false metatable of its entities; false: of no session now (T.spare)
---@field places table<number, integer>
---@field id_at integer offset of the id in a row
---@field cached boolean
---@field after_load function?

---@class regolith.Session
---@field _orm regolith.Orm
---@field _c ffi.cdata* rg_session
---@field _view ffi.cdata* rg_view
---@field _types table<regolith.Entity, regolith.SessionType>
---@field _at table<integer, table>
---@field _new (table|false)[] new entities by number; false: forgotten
---@field _top integer last place in use
---@field _fresh table<table, integer> new entities and their number; like _new spare.NONE at first
---@field _n_fresh integer
---@field _waiting table<table, { number: integer, why: regolith.Err }>? new entities that the flush allots ids
---@field _doomed table<table, integer> entities to be deleted, in order; spare.NONE at first
---@field _n_doomed integer
---@field _timeout_ms integer?
---@field _busy boolean an operation is under way
---@field _hooked boolean an entity that it has met has hooks
---@field _undo regolith.Undo? what the hooks of the flush under way have found
local Session = { __name = "regolith.Session" }
Session.__index = Session

local Closed = {
  __index = function(_, name)
    if name == "close" then return function() end end
    local public = type(name) == "string" and not name:find "^_"
    error("the session is closed" .. (public and " (" .. name .. ")" or ""), outside())
  end,
  __newindex = function() error("the session is closed", outside()) end,
}

-- ---- the parts the other files use --------------------------------------------------------------

--- Raises unless the session's orm has the entity.
---@param entity regolith.Entity
---@param level integer
---@return regolith.SessionType
function Session:_type(entity, level)
  local S = self._types[entity]
  if S then return S end
  local T = self._orm._types[entity]
  if not T then
    if not entities.is(entity) then error("an entity is expected, as regolith.entity makes it", level + 1) end
    error(string.format("the entity '%s' is not among those of this orm", entity.name), level + 1)
  end
  S = spare.pop(T.spare) or {
    T = T, number = T.number, shards = T.shards, decode = T.decode, fill = T.fill, refresh = T.refresh, make = T.make,
    mt = false, places = {}, id_at = T.info(0).offset, cached = T.cached, after_load = nil,
  }
  S.mt, S.after_load = record.metatable(self, T), T.hooks.after_load
  self._types[entity] = S
  if next(T.hooks) then self._hooked = true end
  return S
end

--- One that is to be deleted, while a new one has its id already.
local function replaced(self, S, e)
  if not self._doomed[e] then return nil end
  for place, known in pairs(self._at) do
    if known == e then return S, place end
  end
end

--- The types of entities that are under this session's care.
---@return regolith.SessionType? S
---@return integer? place
local function care(self, e)
  local mt = type(e) == "table" and getmetatable(e)
  if type(mt) ~= "table" or mt.rg_session ~= self then return nil end
  local entity = mt.rg_type.entity
  local S = self._types[entity] or self:_type(entity, 2)
  local fresh = self._fresh[e]
  if fresh then return S, -fresh end
  local id = rawget(e, "id")
  local place = type(id) == "number" and S.places[id]
  if place and self._at[place] == e then return S, place end
  return replaced(self, S, e)
end
Session._care = care

--- The same of one whose id was changed, too: by the entity itself.
---@return regolith.SessionType? S
---@return integer? place
function Session:_find(e)
  local S, place = care(self, e)
  if S then return S, place end
  for at, known in pairs(self._at) do
    if known == e then return self._types[record.type_of(e).entity], at end
  end
end

--- The same; raises when the entity is nobody's, or another session's.
function Session:_need(e, level)
  local S, place = care(self, e)
  if S then return S, place end
  local T = record.type_of(e)
  if not T then error("an entity is expected", level + 1) end
  error(string.format("this %s is not in this session (deleted, discarded, of another session, or its id was changed)",
    T.name), level + 1)
end

--- Takes an operation into care; nil and the error when it could not be made.
function Session:_own(op)
  if op == nil then return nil, errors.from_c(err) end
  if self._orm._replicas and not self._from_primary then C.rg_op_of_session(op, self._c) end
  return ffi.gc(op, C.rg_op_free)
end

--- Runs an operation; waits as the host does.
---@return true? ok
---@return regolith.Err? err
function Session:_run(op, level)
  local orm = self._orm
  if orm._host.blocking then return orm:_run(op, self._timeout_ms) end
  if self._busy then
    error("the session is in use by another coroutine; give each its own session", (level or 2) + 1)
  end
  self._busy = true
  local called, ok, e = pcall(orm._run, orm, op, self._timeout_ms)
  self._busy = false
  if not called then error(ok, 0) end -- as where a C function on the stack forbids to yield
  return ok, e
end

--- Tells the hook of an entity that was loaded; one that it refuses, by raising, is not in the session.
local function welcome(self, S, id, e, place)
  local ok, fault = pcall(S.after_load, e, self)
  if ok then return end
  if rawget(self, "_at") and self._at[place] == e then
    self._at[place], S.places[id] = nil, nil
    C.rg_session_repin(self._c, place - 1, nil)
  end
  error(fault, 0)
end

--- Makes an entity of the row in the view and remembers it; blank: its table, when there is one already.
function Session:_adopt(S, id, view, blank)
  local place = view.slot + 1
  local e = setmetatable(blank and S.fill(blank, view.data) or S.decode(view.data), S.mt)
  S.places[id] = place
  self._at[place] = e
  if place > self._top then self._top = place end
  if S.after_load then welcome(self, S, id, e, place) end
  return e
end

--- The entity at a place, or nil when it is about to be deleted.
local function alive(self, place)
  local e
  if place > 0 then e = self._at[place] else e = self._new[-place] end
  if self._n_doomed > 0 and self._doomed[e] then return nil end
  return e
end

--- Row i of an operation as an entity: the one that is known already, else a new one.
function Session:_row(S, op, i, blank)
  local view = self._view
  local rc = C.rg_op_row(op, i, self._c, view)
  if rc ~= HIT then return nil end
  local id = tonumber(ffi.cast(u64p, view.data + S.id_at)[0])
  local place = S.places[id]
  if not place then return self:_adopt(S, id, view, blank) end
  C.rg_session_repin(self._c, view.slot, nil)
  return alive(self, place)
end

--- Rows first..last of an operation as a list.
function Session:_rows(S, op, first, last)
  local list, n = new_table(math.max(last - first + 1, 0), 0), 0
  for i = first, last do
    local e = self:_row(S, op, i)
    if e then
      n = n + 1
      list[n] = e
    end
  end
  if n > 1 then self:_remember(list) end
  return list
end

-- ---- by id --------------------------------------------------------------------------------------

--- An id in any of its forms as a number.
local function id_number(id, level)
  if type(id) == "cdata" or (type(id) == "string" and id:find "^%-?%d+$") then id = tonumber(id) or id end
  if type(id) ~= "number" or id % 1 ~= 0 then
    error(string.format("an id is a whole number, not %s", type(id) == "number" and tostring(id) or "a " .. type(id)),
      level + 1)
  end
  return id
end

function Session:_get_slow(S, id, number)
  local view = self._view
  if self._orm._host.blocking and not self._timeout_ms then
    local rc = C.rg_session_get(self._c, number, id, view, err)
    if self._orm._log then log.drain_session(self._orm, self._c) end
    if rc == HIT then return self:_adopt(S, id, view) end
    if rc < 0 then return errors.fail(err) end
    return nil
  end
  local op, fault = self:_own(C.rg_op_get(self._orm._engine, number, 0, err))
  if not op then return errors.results(fault) end
  if C.rg_op_add_id(op, id, err) < 0 then return errors.fail(err) end
  local ok
  ok, fault = self:_run(op, 3)
  if not ok then return errors.results(fault) end
  local e = self:_row(S, op, 0)
  done(op)
  return e
end

--- The entity with that id: from the identity map, the caches or MySQL. nil when there is none.
---@param entity regolith.Entity
---@param id number|string|ffi.cdata*
--- With `strict` it is what is committed now, wherever it was committed (Redis knows), and an entity that is
--- known already is brought up to date.
---@param opts? { strict: boolean?, lock: "share"|"update"?, nowait: boolean?, skip_locked: boolean? } locks:
---  inside a transaction
---@return table? entity
---@return regolith.Err? err
---@return integer? errno
---@return string? sqlstate
function Session:get(entity, id, opts)
  local S = self._types[entity] or self:_type(entity, 2)
  if type(id) ~= "number" or id % 1 ~= 0 then id = id_number(id, 2) end
  if opts ~= nil then return locking.get(self, S, id, opts) end
  local place = S.places[id]
  if place then return alive(self, place) end
  local number = S.number or shards.number(S.shards, id)
  if not number then return nil end
  if S.cached then
    local view = self._view
    local found = C.rg_session_peek(self._c, number, id, view)
    if self._orm._log then log.drain_session(self._orm, self._c) end
    if found == HIT then return self:_adopt(S, id, view) end
    if found == ABSENT then return nil end
  end
  if id < 1 or id > 9007199254740992 then return nil end
  return self:_get_slow(S, id, number)
end

--- Has the servers begin with what a get of n rows asks for, and makes the tables for its entities
--- meanwhile. nil: too few for that, or the host has something else to do meanwhile.
---@return table[]?
function Session:_ask(S, op, n)
  if n < ASK_LEAST or not self._orm._host.blocking or C.rg_op_ask(op, self._timeout_ms or 0) == 0 then return nil end
  local blank, blanks = S.T.blank, new_table(n, 0)
  for i = 1, n do blanks[i] = blank() end
  return blanks
end

--- Fetches those of the ids that the session does not know, in one operation.
function Session:_fetch(S, ids, n)
  local view, places, missing, m = self._view, S.places, new_table(n, 0), 0
  for i = 1, n do
    local id = ids[i]
    local number = S.number or shards.number(S.shards, id)
    if not places[id] and id >= 1 and id <= 9007199254740992 and number then
      local found = S.cached and C.rg_session_peek(self._c, number, id, view)
      if found == HIT then
        self:_adopt(S, id, view)
      elseif found ~= ABSENT then
        m = m + 1
        missing[m] = id
      end
    end
  end
  if self._orm._log then log.drain_session(self._orm, self._c) end
  if m == 0 then return true end
  local first = S.number or shards.number(S.shards, missing[1])
  local op, fault = self:_own(C.rg_op_get(self._orm._engine, first, 0, err))
  if not op then return nil, fault end
  for i = 1, m do
    local rc
    if S.number then rc = C.rg_op_add_id(op, missing[i], err)
    else rc = C.rg_op_add_id_of(op, shards.number(S.shards, missing[i]), missing[i], err) end
    if rc < 0 then return nil, errors.from_c(err) end
  end
  local ok
  local blanks = self:_ask(S, op, m) or NONE
  ok, fault = self:_run(op, 3)
  if not ok then return nil, fault end
  for i = 0, m - 1 do self:_row(S, op, i, blanks[i + 1]) end
  done(op)
  return true
end

--- The entities with those ids, in that order; duplicates are the same entity, missing ones leave
--- holes: the field `n` is the length.
---@param entity regolith.Entity
---@param ids (number|string)[]
---@return table? list
---@return regolith.Err? err
function Session:get_many(entity, ids)
  local S = self:_type(entity, 2)
  if type(ids) ~= "table" then error("get_many takes a list of ids", 2) end
  local n = options.length("get_many", ids)
  local wanted = new_table(n, 0)
  for i = 1, n do
    local id = ids[i]
    if type(id) ~= "number" or id % 1 ~= 0 then id = id_number(id, 2) end
    wanted[i] = id
  end
  local ok, fault = self:_fetch(S, wanted, n)
  if not ok then return errors.results(fault) end
  local list = new_table(n, 1)
  list.n = n
  for i = 1, n do
    local place = S.places[wanted[i]]
    list[i] = place and alive(self, place) or nil
  end
  if n > 1 then self:_remember(list) end
  return list
end

--- None of the entities is new any more.
function Session:_forget_new()
  if self._n_fresh <= spare.MOST_ENTRIES then
    clear(self._fresh)
    clear(self._new)
  else
    self._fresh, self._new = spare.NONE, spare.NONE
  end
  self._n_fresh = 0
end

--- A cache of the application's values, by its definition or its name, for use with this session.
---@param which regolith.Cache|string
---@return regolith.CacheHandle
function Session:cache(which) return (caches.of(self._orm, self, which, 2)) end

-- ---- life ---------------------------------------------------------------------------------------

local function forget_places(S, few)
  if few then clear(S.places) else S.places = {} end
end

local function forget_all_places(types, few)
  for _, S in pairs(types) do forget_places(S, few) end
end

--- Forgets everything: entities, changes, new ones. Entities at hand become plain data.
function Session:clear()
  if self._busy then error("the session is in use by another coroutine", 2) end
  C.rg_session_clear(self._c)
  if self._undo then self._undo.cleared = true end
  local few = self._top <= spare.MOST_ENTRIES
  local entity, S = next(self._types) -- of one type, mostly: without a loop it is compiled with what calls it
  if S then
    forget_places(S, few)
    if next(self._types, entity) then forget_all_places(self._types, few) end
  end
  if few then clear(self._at) else self._at = {} end
  self._top, self._waiting = 0, nil
  self:_forget_new()
  if self._n_doomed > 0 then self._doomed, self._n_doomed = spare.NONE, 0 end
end

--- Keeps what the session knows of its types for the next one.
local function give_types(orm, types)
  for _, S in pairs(types) do
    clear(S.places)
    S.mt = false -- its entities may live on
    spare.push(S.T.spare, S)
  end
  spare.give(orm._spare_types, types)
end

--- Ends the session; its methods raise from now on. Pending changes are lost.
function Session:close()
  if self._busy then error("the session is in use by another coroutine", 2) end
  local c = self._c
  local open = rawget(self._orm, "_engine") ~= nil -- else there are no sessions to come
  if open and self._top <= spare.MOST_ENTRIES then
    spare.give(self._orm._spare_at, self._at)
    give_types(self._orm, self._types)
  end
  if open and self._new ~= spare.NONE and self._n_fresh <= spare.MOST_ENTRIES then
    spare.give(self._orm._spare_new, self._new)
    spare.give(self._orm._spare_new, self._fresh)
  end
  clear(self)
  setmetatable(self, Closed)
  C.rg_session_free(ffi.gc(c, nil))
end

-- ---- replicas -----------------------------------------------------------------------------------

local token_len = ffi.new "size_t[1]"

--- What this session has written (and followed), as a short text for the next session of the same user:
--- `orm:session { token = token }` reads from a replica only what has reached it. nil when there is
--- nothing to tell. Sign it where users could forge it: a forged one costs reads from the primary.
---@return string?
function Session:token()
  local p = C.rg_session_token(self._c, token_len)
  return token_len[0] > 0 and ffi.string(p, token_len[0]) or nil
end

--- Reads from now on what another session has written: its token, e.g. with a message that it sent. A
--- text that is no token has the primary answer everything.
---@param token string
---@return boolean known was it a token?
function Session:follow(token)
  if type(token) ~= "string" then error("a token is a string", 2) end
  return C.rg_session_follow(self._c, token, #token) == 1
end

local M = { Session = Session }
local OPTIONS = {
  timeout_ms = options.integer(1, 4294967295), primary = options.boolean,
  token = function(v) if type(v) ~= "string" then return "must be a string, as session:token() gives it" end end,
}

---@param orm regolith.Orm
---@param opts? { timeout_ms: integer?, token: string?, primary: boolean? }
---@return regolith.Session? session
---@return regolith.Err? err
function M.new(orm, opts)
  if opts ~= nil then options.require("session", opts, OPTIONS) end
  local c = C.rg_session_new(orm._engine, err)
  if c == nil then return errors.fail(err) end
  local self = setmetatable({
    _orm = orm, _c = ffi.gc(c, C.rg_session_free), _view = new_view(),
    _types = spare.take(orm._spare_types), _at = spare.take(orm._spare_at), _top = 0,
    _fresh = spare.NONE, _new = spare.NONE, _n_fresh = 0, _doomed = spare.NONE, _n_doomed = 0,
    _timeout_ms = opts and opts.timeout_ms, _busy = false, _hooked = false,
  }, Session)
  if opts and opts.primary then C.rg_session_primary(c) end
  if opts and opts.token then self:follow(opts.token) end
  return self
end

require("regolith.lookup").install(Session)
require("regolith.reference").install(Session)
require("regolith.unit").install(Session)
require("regolith.raw").install(Session)
require("regolith.transaction").install(Session)

return M
