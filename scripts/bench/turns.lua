-- SPDX-License-Identifier: MIT
-- Two sides that take short turns in one process: a disk, or a machine, that is slow for a while is so for both.
-- The ratio is the median of those of neighbouring turns; who begins changes from pair to pair.

local WARM_PAIRS = 50 -- that do not count, nor the first tenth of the time

local M = {}

local function median(list)
  table.sort(list)
  return list[math.floor((#list + 1) / 2)]
end

--- Prints the answer: `turn` operations in each call of `ours` and of `theirs`, which give how long it took.
---@param seconds number of each side
---@param turn integer
---@param ours fun(): number
---@param theirs fun(): number
function M.take(seconds, turn, ours, theirs)
  local a, b, ratios, spent, pair = {}, {}, {}, 0, 0
  while spent < 2.2 * seconds do
    pair = pair + 1
    local x, y
    if pair % 2 == 0 then
      x = ours()
      y = theirs()
    else
      y = theirs()
      x = ours()
    end
    spent = spent + x + y
    if pair > WARM_PAIRS or spent > 0.2 * seconds then
      a[#a + 1], b[#b + 1], ratios[#ratios + 1] = x, y, y / x
    end
  end
  io.write(string.format("ours=%.3f raw=%.3f ratio=%.4f\n", turn / median(a), turn / median(b), median(ratios)))
end

return M
