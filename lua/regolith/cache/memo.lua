-- SPDX-License-Identifier: MIT
-- Values of a cache as this Lua state has them already: strings, numbers and booleans, which nobody can
-- change, need not be made anew from their bytes as long as these hold. Bounded; emptied when it is full.

local native = require "regolith.native"

local C, ffi = native.C, native.ffi

local M = {}

local MOST, MOST_BYTES, LARGEST = 16384, 4 * 1024 * 1024, 4096
local MADE_OF = { string = true, number = true, boolean = true }

local hold_of = ffi.typeof "rg_cache_hold"
--- Never kept across a call.
local scratch = hold_of()
local hold_size = ffi.sizeof "rg_cache_hold"

---@class regolith.Memo
---@field values table<string, any>
---@field holds table<string, ffi.cdata*>
---@field n integer
---@field bytes integer

--- For a cache whose values can be kept so; nil for others.
---@param cache regolith.Cache
---@return regolith.Memo?
function M.new(cache)
  local value = cache.args.value
  if cache.args.process == false or cache.args.sliding or not MADE_OF[value] then return nil end
  return { values = {}, holds = {}, n = 0, bytes = 0 }
end

--- Keeps a value under what the last peek said of it.
local function keep(memo, k, v, len)
  if len > LARGEST then return end
  local hold = memo.holds[k]
  if not hold then
    if memo.n >= MOST or memo.bytes >= MOST_BYTES then
      memo.values, memo.holds, memo.n, memo.bytes = {}, {}, 0, 0
    end
    hold = hold_of()
    memo.holds[k] = hold
    memo.n = memo.n + 1
    memo.bytes = memo.bytes + #k
  end
  ffi.copy(hold, scratch, hold_size)
  memo.values[k] = v
  memo.bytes = memo.bytes + len
end

--- A peek for a value to be kept: its state.
---@param view ffi.cdata* rg_cache_view
---@return integer
function M.peek(handle, k, view) return C.rg_cache_peek_hold(handle._engine, handle._number, k, #k, view, scratch) end

M.keep = keep

return M
