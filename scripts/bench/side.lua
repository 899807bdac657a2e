-- SPDX-License-Identifier: MIT
-- Runs one of our sides in a process of its own: side.lua GROUP.NAME NUMBER, the number being seconds or
-- operations. Prints its answer.

local group, name = arg[1]:match "^(%w+)%.([%w_]+)$"
local run = assert(require("sides." .. group)[name], arg[1] .. ": no such side")
math.randomseed(tonumber(os.getenv "BENCH_ROUND") or 1)
run(tonumber(arg[2]))
