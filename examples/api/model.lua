-- SPDX-License-Identifier: MIT
-- The packages that are installed on this machine.

local regolith = require "regolith"
local field = regolith.field

local M = {}

M.Section = regolith.entity("section", { field.string "name" { length = 80, unique = true }, cache = true })

M.Package = regolith.entity("package", {
  field.string "name" { length = 120, required = true },
  field.string "arch" { length = 20, required = true },
  field.string "version" { length = 100, required = true },
  field.ref "section" { M.Section },
  field.uint64 "installed_kib",
  field.string "summary" { length = 500 },
  field.uint32 "views",
  unique = { release = { "name", "arch" } },
  index = { by_section = { "section" } },
  cache = true,
})

M.ENTITIES = { M.Section, M.Package }

return M
