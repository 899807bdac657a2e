-- SPDX-License-Identifier: MIT
-- What wrk prints, with --latency.

local UNITS = { us = 0.001, ms = 1, s = 1000, m = 60000 }

local function time_of(text)
  local n, unit = text:match "^([%d.]+)(%a+)$"
  return tonumber(n) * UNITS[unit]
end

local M = {}

--- Requests a second, and latencies in ms; nil when it has measured nothing.
---@param text string
---@return { rate: number, p50: number, p99: number }?
function M.figures(text)
  local rate = tonumber(text:match "Requests/sec:%s+(%S+)")
  if not rate then return nil end
  return { rate = rate, p50 = time_of(text:match "\n%s+50%%%s+(%S+)"), p99 = time_of(text:match "\n%s+99%%%s+(%S+)") }
end

return M
