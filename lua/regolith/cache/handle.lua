-- SPDX-License-Identifier: MIT
-- A cache in use: of an ORM, or of a session, whose transactions hold back what is set and deleted.

local defs = require "regolith.cache.define"
local errors = require "regolith.err"
local load = require "regolith.cache.load"
local memos = require "regolith.cache.memo"
local native = require "regolith.native"
local options = require "regolith.options"
local overlay = require "regolith.cache.overlay"
local suggest = require "regolith.suggest"
local values = require "regolith.cache.value"

local C, ffi, err, done = native.C, native.ffi, native.err, native.done
local fstr, key_text = ffi.string, values.key
local VALUE, ABSENT = tonumber(C.RG_CACHED_VALUE), tonumber(C.RG_CACHED_ABSENT)
local BYPASS = tonumber(C.RG_CACHED_BYPASS)
local COMMIT_MS = 100
local TAGS_MAX = tonumber(C.RG_CACHE_TAGS_MAX)

---@class regolith.CacheHandle
---@field _orm regolith.Orm
---@field _engine ffi.cdata* rg_engine, borrowed from the orm
---@field _number integer
---@field _cache regolith.Cache
---@field _session regolith.Session?
local Handle = { __name = "regolith.CacheHandle" }
Handle.__index = Handle

--- Never kept across a call that may yield.
local view = ffi.new "rg_cache_view"

local function seconds(v)
  if type(v) ~= "number" or v ~= v or v < 0.001 or v > 1e9 then return "must be a number of seconds, at least 0.001" end
end

local function waiting(v)
  if type(v) ~= "number" or v ~= v or v < 0 or v > 1e9 then return "must be a number of seconds" end
end

local SET = { ttl_s = seconds, tags = options.any }
local LOAD = { ttl_s = seconds, absent_ttl_s = seconds, tags = options.any, wait_s = waiting }

-- ---- the parts the other files use --------------------------------------------------------------

--- The value in a view; damaged ones count as none.
---@return boolean ok
---@return any value
function Handle:_decode(data, len)
  local kind = self._cache.kind
  if len > 0 and data[0] == kind.tag then
    local v, fault = kind.decode(fstr(data + 1, len - 1), self._session)
    if fault == nil then return true, v end
    if errors.is(fault) then return true, nil, fault end
  end
  C.rg_cache_corrupt(self._engine)
  return false
end

--- Runs an operation of this cache: nil and the error when it could not be made, or failed.
function Handle:_do(op)
  if op == nil then return nil, errors.from_c(err) end
  local session = self._session
  return self._orm:_do(op, session and session._timeout_ms)
end

function Handle._tag_all(_, op, tags)
  for _, tag in ipairs(tags or {}) do
    if type(tag) ~= "string" then error("a tag is a string", 4) end
    if C.rg_op_cache_tag(op, tag, #tag, err) < 0 then return nil, errors.from_c(err) end
  end
  return true
end

local function check_tags(self, tags, level, most)
  if tags == nil then return nil end
  if self._cache.args.redis == false then error("tags need a cache in Redis", level + 1) end
  if type(tags) == "string" then return { tags } end
  if type(tags) ~= "table" then error("tags are a list of strings", level + 1) end
  if #tags > (most or TAGS_MAX) then
    error(string.format("a value has %d tags at most, not %d", TAGS_MAX, #tags), level + 1)
  end
  for _, tag in ipairs(tags) do
    if type(tag) ~= "string" then error("a tag is a string", level + 1) end
  end
  return tags
end
Handle._check_tags = check_tags

--- Sends what is set; pairs is a list of { key text, bytes }.
function Handle:_set_now(list, ttl_s, tags)
  local op = C.rg_op_cache_set(self._engine, self._number, (ttl_s or 0) * 1000, err)
  if op == nil then return nil, errors.from_c(err) end
  op = ffi.gc(op, C.rg_op_free)
  for _, pair in ipairs(list) do
    if C.rg_op_cache_key(op, pair[1], #pair[1], err) < 0 or C.rg_op_cache_value(op, pair[2], #pair[2], err) < 0 then
      return nil, errors.from_c(err)
    end
  end
  local ok, fault = self:_tag_all(op, tags)
  if not ok then return nil, fault end
  ok, fault = self:_do(ffi.gc(op, nil))
  if not ok then return nil, fault end
  done(ok)
  for _, pair in ipairs(list) do load.detach(self, pair[1]) end
  return true
end

--- The same for keys to delete; how many Redis had.
function Handle:_delete_now(keys)
  local op = C.rg_op_cache_delete(self._engine, self._number, err)
  if op == nil then return nil, errors.from_c(err) end
  op = ffi.gc(op, C.rg_op_free)
  for _, key in ipairs(keys) do
    if C.rg_op_cache_key(op, key, #key, err) < 0 then return nil, errors.from_c(err) end
    load.detach(self, key)
  end
  local ran, fault = self:_do(ffi.gc(op, nil))
  for _, key in ipairs(keys) do load.detach(self, key) end
  if not ran then return nil, fault end
  local n = C.rg_op_number(ran)
  done(ran)
  return n
end

function Handle:_delete_tags_now(tags)
  local op = C.rg_op_cache_delete_tags(self._engine, self._number, err)
  if op == nil then return nil, errors.from_c(err) end
  op = ffi.gc(op, C.rg_op_free)
  local ok, fault = self:_tag_all(op, tags)
  if not ok then return nil, fault end
  load.detach_all(self)
  ok, fault = self:_do(ffi.gc(op, nil))
  load.detach_all(self)
  if not ok then return nil, fault end
  done(ok)
  return true
end

-- ---- reading ------------------------------------------------------------------------------------

--- A DONE take of keys, or nil and the error. What a transaction is committing is waited for.
local function take(self, keys, n)
  local op = C.rg_op_cache_take(self._engine, self._number, 0, 0, COMMIT_MS, err)
  if op == nil then return nil, errors.from_c(err) end
  op = ffi.gc(op, C.rg_op_free)
  for i = 1, n do
    if C.rg_op_cache_key(op, keys[i], #keys[i], err) < 0 then return nil, errors.from_c(err) end
  end
  return self:_do(ffi.gc(op, nil))
end

local function unreachable(self)
  local text = string.format("cache %s: Redis cannot be asked", self._cache.name)
  return errors.new("UNAVAILABLE", text, { retriable = true })
end

--- Key i of a take: a value, or nil; the error when Redis could not be asked.
local function found(self, op, i)
  local state = C.rg_op_cache_found(op, i, view)
  if state == VALUE then
    local _, v, fault = self:_decode(view.data, view.len)
    return v, fault
  end
  if state == BYPASS then return nil, unreachable(self) end
  return nil
end

--- The value of a key; nil when there is none, or when its absence is cached.
---@param key string|number|(string|number)[]
---@return any value
---@return regolith.Err? err Redis could not be asked
---@return integer? errno
---@return string? sqlstate
function Handle:get(key)
  local k = key_text(key, 2)
  if self._session then
    local known, v = overlay.get(self, k)
    if known then return v end
  end
  local memo = self._memo
  if memo then
    local hold = memo.holds[k]
    if hold and C.rg_cache_holds(self._engine, hold) ~= 0 then return memo.values[k] end
  end
  local state
  if memo then
    state = memos.peek(self, k, view)
  else
    state = C.rg_cache_peek(self._engine, self._number, k, #k, 0, view)
  end
  if state == VALUE then
    local block, len = view.block, view.len
    local ok, v, fault = self:_decode(view.data, len)
    C.rg_block_unref(block)
    if fault then return errors.results(fault) end
    if ok then
      if memo then memos.keep(memo, k, v, len) end
      return v
    end
  elseif state == ABSENT then
    return nil
  end
  if self._cache.args.redis == false then return nil end
  local op, fault = take(self, { k }, 1)
  if not op then return errors.results(fault) end
  local v
  v, fault = found(self, op, 0)
  done(op)
  if fault then return errors.results(fault) end
  return v
end

--- The values of keys, in one step a tier: a table by the keys as they were given, without those that
--- are not there.
---@param keys (string|number|(string|number)[])[]
---@return table? values
---@return regolith.Err? err
function Handle:get_many(keys)
  if type(keys) ~= "table" then error("get_many takes a list of keys", 2) end
  local out, texts, asked, n = {}, {}, {}, 0
  for _, key in ipairs(keys) do
    local k = key_text(key, 2)
    local known, v = overlay.get(self, k)
    if known then
      out[key] = v
    else
      n = n + 1
      texts[n], asked[n] = k, key
    end
  end
  if n == 0 then return out end
  local op, fault = take(self, texts, n)
  if not op then return errors.results(fault) end
  for i = 1, n do
    local v
    v, fault = found(self, op, i - 1)
    if fault then return errors.results(fault) end
    out[asked[i]] = v
  end
  done(op)
  return out
end

--- The value of a key; what is not there is loaded, by one of all who ask for it at the same time, in
--- this process and in others. A loader that gives nil has its absence cached; one that fails (nil and
--- an error) has its failure returned to everybody who waits for nobody else.
---@param key string|number|(string|number)[]
---@param loader fun(key: any): any, any
---@param opts? { ttl_s: number?, absent_ttl_s: number?, tags: string[]|fun(value: any): string[], wait_s: number? }
---@return any value
---@return any err the loader's; never one of Redis
function Handle:get_or_load(key, loader, opts)
  if type(loader) ~= "function" then error("get_or_load takes a function that loads", 2) end
  opts = options.require("get_or_load", opts, LOAD)
  if type(opts.tags) ~= "function" then check_tags(self, opts.tags, 2) end
  local k = key_text(key, 2)
  if overlay.active(self) then
    local v, fault = overlay.load(self, key, loader)
    return v, fault
  end
  local v, fault = load.run(self, k, key, loader, opts) -- no tail call: an error blames the caller
  return v, fault
end

-- ---- writing ------------------------------------------------------------------------------------

--- Sets a key. In a transaction it waits for the COMMIT; the transaction's own reads see it at once.
---@param key string|number|(string|number)[]
---@param value any not nil
---@param opts? { ttl_s: number?, tags: string|string[]|nil }
---@return true? ok
---@return regolith.Err? err
---@return integer? errno
---@return string? sqlstate
function Handle:set(key, value, opts)
  opts = options.require("set", opts, SET)
  if value == nil then error("set takes a value; delete removes one", 2) end
  local tags = check_tags(self, opts.tags, 2)
  local list = { { key_text(key, 2), values.encode(self._cache, value, 2) } }
  if overlay.active(self) then return overlay.set(self, list, { value }, opts.ttl_s, tags) end
  local ok, fault = self:_set_now(list, opts.ttl_s, tags)
  if not ok then return errors.results(fault) end
  return true
end

--- Sets several keys, given as a table from key to value, or as a list of { key, value }.
---@param pairs_of table
---@param opts? { ttl_s: number?, tags: string|string[]|nil }
---@return true? ok
---@return regolith.Err? err
function Handle:set_many(pairs_of, opts)
  if type(pairs_of) ~= "table" then error("set_many takes a table of values by key", 2) end
  opts = options.require("set_many", opts, SET)
  local tags = check_tags(self, opts.tags, 2)
  local list, given = {}, {}
  local function add(key, value)
    list[#list + 1] = { key_text(key, 3), values.encode(self._cache, value, 3) }
    given[#list] = value
  end
  if type(pairs_of[1]) == "table" and #pairs_of[1] == 2 then
    for _, pair in ipairs(pairs_of) do add(pair[1], pair[2]) end
  else
    for key, value in pairs(pairs_of) do add(key, value) end
  end
  if #list == 0 then return true end
  if overlay.active(self) then return overlay.set(self, list, given, opts.ttl_s, tags) end
  local ok, fault = self:_set_now(list, opts.ttl_s, tags)
  if not ok then return errors.results(fault) end
  return true
end

--- Deletes a key: loads of it that are under way fill nothing. In a transaction it waits for the COMMIT.
---@param key string|number|(string|number)[]
---@return true? ok
---@return regolith.Err? err
---@return integer? errno
---@return string? sqlstate
function Handle:delete(key)
  local keys = { key_text(key, 2) }
  if overlay.active(self) then return overlay.delete(self, keys) end
  local n, fault = self:_delete_now(keys)
  if not n then return errors.results(fault) end
  return true
end

---@param keys (string|number|(string|number)[])[]
---@return true? ok
---@return integer|regolith.Err n how many Redis had; 0 in a transaction, where it waits
function Handle:delete_many(keys)
  if type(keys) ~= "table" then error("delete_many takes a list of keys", 2) end
  local list = {}
  for i, key in ipairs(keys) do list[i] = key_text(key, 2) end
  if #list == 0 then return true, 0 end
  if overlay.active(self) then return overlay.delete(self, list), 0 end
  local n, fault = self:_delete_now(list)
  if not n then return errors.results(fault) end
  return true, n
end

--- Deletes everything that was set or loaded with a tag.
---@param tag string|string[]
---@return true? ok
---@return regolith.Err? err
---@return integer? errno
---@return string? sqlstate
function Handle:delete_tag(tag)
  local tags = check_tags(self, tag, 2, math.huge)
  if not tags or #tags == 0 then error("delete_tag takes a tag", 2) end
  for _, each in ipairs(tags) do
    if type(each) ~= "string" then error("a tag is a string", 2) end
  end
  if overlay.active(self) then return overlay.delete_tags(self, tags) end
  for at = 1, #tags, TAGS_MAX do
    local ok, fault = self:_delete_tags_now { unpack(tags, at, math.min(at + TAGS_MAX - 1, #tags)) }
    if not ok then return errors.results(fault) end
  end
  return true
end

local M = {}

local function ms(s) return math.floor((s or 0) * 1000 + 0.5) end

--- Adds a cache to the engine's configuration; negative with the rg_err filled when it is refused.
---@param c ffi.cdata* rg_config
---@param cache regolith.Cache
---@return integer
function M.describe(c, cache)
  local args = cache.args
  return C.rg_config_cache(c, ffi.new("rg_cache_opts", {
    size = ffi.sizeof "rg_cache_opts", name = cache.name,
    redis = type(args.redis) == "string" and args.redis or nil,
    in_process = args.process ~= false and 1 or 0, in_redis = args.redis ~= false and 1 or 0,
    ttl_ms = ms(args.ttl_s), absent_ttl_ms = ms(args.absent_ttl_s), stale_ms = ms(args.stale_s),
    lease_ms = ms(args.lease_s), max_bytes = args.max_bytes or 0, sliding = args.sliding and 1 or 0,
  }), err)
end

--- What an ORM knows of its caches, by definition and by name; and their names.
---@param list regolith.Cache[]
---@return table<regolith.Cache|string, table>
---@return table<string, true>
function M.register(list)
  local known, names = {}, {}
  for i, cache in ipairs(list) do
    local entry = { cache = cache, number = i - 1, flights = {}, memo = memos.new(cache) }
    known[cache], known[cache.name], names[cache.name] = entry, entry, true
  end
  return known, names
end

--- The handle of a cache, by its definition or its name; made once for an owner.
---@param orm regolith.Orm
---@param session regolith.Session?
---@param which regolith.Cache|string
---@param level integer
---@return regolith.CacheHandle
function M.of(orm, session, which, level)
  local known = orm._caches[which]
  if not known then
    if defs.is(which) then
      error(string.format("the cache '%s' is not among those of this orm", which.name), level + 1)
    end
    if type(which) ~= "string" then error("a cache is expected, as regolith.cache makes it, or its name", level + 1) end
    error(string.format("there is no cache '%s'%s", which, suggest.hint(which, orm._cache_names)), level + 1)
  end
  if not session then
    if known.cache.kind.needs_session then
      error(string.format("cache %s holds entities: take it from a session, as in db:cache(%q)", known.cache.name,
        known.cache.name), level + 1)
    end
    known.handle = known.handle or setmetatable({ _orm = orm, _engine = orm._engine, _number = known.number,
      _cache = known.cache, _flights = known.flights, _memo = known.memo }, Handle)
    return known.handle
  end
  local own = session._handles
  if not own then
    own = {}
    session._handles = own
  end
  local handle = own[known]
  if not handle then
    handle = setmetatable({ _orm = orm, _engine = orm._engine, _number = known.number, _cache = known.cache,
      _session = session, _flights = known.flights, _memo = known.memo }, Handle)
    own[known] = handle
  end
  return handle
end

return M
