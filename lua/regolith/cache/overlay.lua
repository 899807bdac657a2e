-- SPDX-License-Identifier: MIT
-- What a transaction does to caches: it goes with the COMMIT, as rows do (marked before it, published
-- after it, so that no crash leaves what it replaced), and only the transaction's own reads see it before.
-- Kept with the physical transaction as a log; a savepoint that is rolled back cuts it where it was when
-- the savepoint's first entry came.

local errors = require "regolith.err"
local load = require "regolith.cache.load"
local native = require "regolith.native"

local C, ffi, err = native.C, native.ffi, native.err

local M = {}

---@class regolith.CacheOp
---@field handle regolith.CacheHandle
---@field cache regolith.Cache
---@field k string? key; nil: tags are deleted
---@field bytes string? nil: the key is deleted
---@field value any
---@field ttl_s number?
---@field tags string[]?

--- The log of the transaction that the session is in; nil when it is in none.
local function log_of(session)
  local scope = session and session._scope
  return scope and scope._tx or nil, scope
end

--- Is the handle's session in a transaction?
---@param self regolith.CacheHandle
---@return boolean
function M.active(self) return log_of(self._session) ~= nil end

local function carries(op, tags)
  for _, own in ipairs(op.tags or {}) do
    for _, tag in ipairs(tags) do
      if own == tag then return true end
    end
  end
  return false
end

-- ---- what is left of a log in the end -----------------------------------------------------------

--- By cache: what becomes of each key, in order of the first word on it, and the tags that go. Tags go
--- first: a value that was set before its tag was deleted is deleted.
---@param log regolith.CacheOp[]
---@return table[] of { handle, keys = regolith.CacheOp[], tags = string[] }
local function settle(log)
  local list, by_cache = {}, {}
  local function of(op)
    local net = by_cache[op.cache]
    if not net then
      net = { handle = op.handle, keys = {}, at = {}, tags = {}, has_tag = {} }
      list[#list + 1], by_cache[op.cache] = net, net
    end
    return net
  end
  local function delete_tags(net, op)
    for _, tag in ipairs(op.tags) do
      if not net.has_tag[tag] then
        net.tags[#net.tags + 1], net.has_tag[tag] = tag, true
      end
    end
    for i, held in ipairs(net.keys) do
      if carries(held, op.tags) then net.keys[i] = { k = held.k } end
    end
  end
  for _, op in ipairs(log) do
    local net = of(op)
    if op.k == nil then
      delete_tags(net, op)
    else
      local at = net.at[op.k] or #net.keys + 1
      net.keys[at], net.at[op.k] = op, at
    end
  end
  return list
end

local function add_key(op, number, key)
  local k = key.k
  if not key.bytes then return C.rg_op_tx_delete(op, number, k, #k, err) >= 0 end
  if C.rg_op_tx_set(op, number, k, #k, key.bytes, #key.bytes, (key.ttl_s or 0) * 1000, err) < 0 then return false end
  for _, tag in ipairs(key.tags or {}) do
    if C.rg_op_tx_tag(op, tag, #tag, err) < 0 then return false end
  end
  return true
end

local function add_all(op, net)
  local number = net.handle._number
  for _, tag in ipairs(net.tags) do
    if C.rg_op_tx_delete_tag(op, number, tag, #tag, err) < 0 then return false end
  end
  for _, key in ipairs(net.keys) do
    if not add_key(op, number, key) then return false end
  end
  return true
end

--- Has the commit of a transaction carry what it did to caches. Owns the operation: nil and the error when
--- it cannot.
---@param tx table the physical transaction
---@param op ffi.cdata*? of the commit
---@return ffi.cdata*? op
---@return regolith.Err? fault
function M.carry(tx, op)
  if op == nil or not tx.cache_log or #tx.cache_log == 0 then return op end
  op = ffi.gc(op, C.rg_op_free)
  for _, net in ipairs(settle(tx.cache_log)) do
    if not add_all(op, net) then return nil, errors.from_c(err) end
  end
  return ffi.gc(op, nil)
end

--- Whoever loads one of these keys in this Lua state has begun before they changed.
local function detach(log)
  for _, op in ipairs(log) do
    if op.k then load.detach(op.handle, op.k) else load.detach_all(op.handle) end
  end
end

--- The log, with this frame registered: what follows belongs to it.
local function open(tx, scope)
  local log = tx.cache_log
  if not log then
    log = {}
    tx.cache_log = log
  end
  local frame = scope._frame
  if frame.cache_log then return log end
  frame.cache_log = true
  local before = #log
  scope:_after_rollback(function()
    for i = #log, before + 1, -1 do log[i] = nil end
  end)
  scope:_after_commit(function() -- of each frame; the first is enough
    if tx.cache_log ~= log then return end
    tx.cache_log = nil
    detach(log)
  end)
  return log
end

--- What the transaction itself has done to a key. After a tag was deleted nothing that was cached before
--- is believed: its tags are not known here.
---@return boolean known
---@return any value
function M.get(self, k)
  local tx = log_of(self._session)
  local log = tx and tx.cache_log
  if not log then return false end
  local deleted
  for i = #log, 1, -1 do
    local op = log[i]
    if op.cache == self._cache then
      if op.k == k then
        if op.bytes and not (deleted and carries(op, deleted)) then return true, op.value end
        return true, nil
      elseif op.k == nil then
        deleted = deleted or {}
        for _, tag in ipairs(op.tags) do deleted[#deleted + 1] = tag end
      end
    end
  end
  return deleted ~= nil, nil
end

---@param list table[] of { key text, bytes }
---@param given any[] the values
function M.set(self, list, given, ttl_s, tags)
  local log = open(log_of(self._session))
  for i, pair in ipairs(list) do
    log[#log + 1] = { handle = self, cache = self._cache, k = pair[1], bytes = pair[2], value = given[i],
      ttl_s = ttl_s, tags = tags }
  end
  return true
end

function M.delete(self, keys)
  local log = open(log_of(self._session))
  for _, k in ipairs(keys) do log[#log + 1] = { handle = self, cache = self._cache, k = k } end
  return true
end

function M.delete_tags(self, tags)
  local log = open(log_of(self._session))
  log[#log + 1] = { handle = self, cache = self._cache, tags = tags }
  return true
end

--- Loads in a transaction: what is cached may be read, but what is loaded may rest on what is not
--- committed, so that nobody else sees it.
---@return any value
---@return any fault
function M.load(self, key, loader)
  local v, fault = self:get(key)
  if v ~= nil then return v end
  if fault ~= nil and not errors.is(fault) then return nil, fault end
  return loader(key)
end

return M
