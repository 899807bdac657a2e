-- SPDX-License-Identifier: MIT
-- Definitions of caches for the application's own values. As an entity's, a definition collects its
-- faults for regolith.open, holds no connection, and may be used with several ORMs.

local options = require "regolith.options"
local values = require "regolith.cache.value"

---@class regolith.Cache
---@field name string
---@field args table its options
---@field kind regolith.ValueKind
---@field faults string[]
local Cache = { __name = "regolith.Cache" }
Cache.__index = Cache

function Cache:__tostring() return "cache " .. self.name end

local function seconds(least)
  return function(v)
    if type(v) ~= "number" or v ~= v or v < least or v > 1e9 then
      return string.format("must be a number of seconds, at least %g", least)
    end
  end
end

local function redis(v)
  if type(v) == "boolean" then return nil end
  local wrong = options.name(v)
  return wrong and "must be true, false or the name of a Redis pool"
end

local function positive(v)
  if type(v) ~= "number" or v ~= v or v < 0 or v > 1000 then return "must be a number from 0 on" end
end

local OPTIONS = {
  value = options.any, entity = options.any, entities = options.any,
  process = options.boolean, redis = redis,
  ttl_s = seconds(0.001), absent_ttl_s = seconds(0.001), stale_s = seconds(0),
  early = positive, sliding = options.boolean, background = options.boolean,
  lease_s = seconds(0.1), wait_s = seconds(0), max_bytes = options.integer(1, 536870912),
}

local M = {}

---@param v any
---@return boolean
function M.is(v) return getmetatable(v) == Cache end

local function check(self)
  local args = self.args
  local fault = function(text) self.faults[#self.faults + 1] = "cache " .. self.name .. ": " .. text end
  local wrong = options.name(self.name)
  if wrong then fault("its name " .. wrong) end
  options.check(args, OPTIONS, fault)
  if args.process == false and args.redis == false then fault "is neither in the process nor in Redis" end
  if args.redis == false then
    for _, option in ipairs { "stale_s", "sliding" } do
      if args[option] then fault(string.format("option '%s' needs Redis", option)) end
    end
  end
  if args.sliding and (args.stale_s or args.early) then
    fault "option 'sliding' excludes 'stale_s' and 'early': a hit keeps the value alive"
  end
  self.kind = values.kind_of(self, fault)
end

--- Defines a cache.
---@param name string
---@param args? table
---@return regolith.Cache
function M.cache(name, args)
  if type(name) ~= "string" then error('regolith.cache takes a name, as in regolith.cache("profile", { ... })', 2) end
  if args ~= nil and type(args) ~= "table" then
    error(string.format("regolith.cache(%q) takes a table of options", name), 2)
  end
  local self = setmetatable({ name = name, args = args or {}, faults = {} }, Cache)
  check(self)
  return self
end

--- Those of a configuration that are fine; faults of the others are told to complain.
---@param given any[]?
---@param complain fun(text: string)
---@return regolith.Cache[]
function M.take(given, complain)
  local list = {}
  for i, cache in ipairs(given or {}) do
    if not M.is(cache) then
      complain(string.format("caches: entry %d is not a cache, as regolith.cache makes it", i))
    else
      for _, fault in ipairs(cache.faults) do complain(fault) end
      list[#list + 1] = cache
    end
  end
  return list
end

return M
