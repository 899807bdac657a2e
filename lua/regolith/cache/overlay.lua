-- SPDX-License-Identifier: MIT
-- What a transaction does to caches: it waits for the COMMIT, and only the transaction's own reads see it
-- before. Kept with the physical transaction as a log; a savepoint that is rolled back cuts it where it
-- was when the savepoint's first entry came.

local errors = require "regolith.err"

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

--- Sends the log, in order; entries of one cache that are alike go together.
local function apply(log)
  local i, n, failed = 1, #log, nil
  while i <= n do
    local first, list, k = log[i], {}, i
    while k <= n and log[k].cache == first.cache and log[k].k and (log[k].bytes == nil) == (first.bytes == nil)
      and log[k].ttl_s == first.ttl_s and log[k].tags == first.tags do
      list[#list + 1] = first.bytes and { log[k].k, log[k].bytes } or log[k].k
      k = k + 1
    end
    local ok, fault
    if first.k == nil then
      ok, fault = first.handle:_delete_tags_now(first.tags)
      k = i + 1
    elseif first.bytes then
      ok, fault = first.handle:_set_now(list, first.ttl_s, first.tags)
    else
      ok, fault = first.handle:_delete_now(list)
    end
    if not ok then failed = fault end
    i = k
  end
  if failed then error(failed, 0) end
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
  scope:_after_commit(function() -- of each frame; the first sends all
    if tx.cache_log ~= log then return end
    tx.cache_log = nil
    apply(log)
  end)
  return log
end

local function carries(op, tags)
  for _, own in ipairs(op.tags or {}) do
    for _, tag in ipairs(tags) do
      if own == tag then return true end
    end
  end
  return false
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
