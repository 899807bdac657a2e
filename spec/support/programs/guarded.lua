-- SPDX-License-Identifier: MIT
-- Entities whose writes are single statements: neither is cached anywhere.

local regolith = require "regolith"
local field = regolith.field

local M = {
  Plain = regolith.entity("plain", { field.int32 "n", ids = "application" }),
  Versioned = regolith.entity("versioned", {
    field.int32 "n", field.uint32 "v" { version = true }, ids = "application",
  }),
}
M.list = { M.Plain, M.Versioned }

return M
