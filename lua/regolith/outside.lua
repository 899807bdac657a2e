-- SPDX-License-Identifier: MIT
-- Whose call it was: for misuse that shows deep within the library.

local getinfo = debug.getinfo

local FOLDER = getinfo(1, "S").source:match "^(.*/)" or "@"

--- The level, for `error` in the function that calls this, of the function outside of this library that the call came
--- from; 1 when there is none.
---@return integer level
return function()
  local level = 3
  while true do
    local info = getinfo(level, "S")
    if not info then return 1 end
    if info.what ~= "C" and info.source:sub(1, #FOLDER) ~= FOLDER then return level - 1 end
    level = level + 1
  end
end
