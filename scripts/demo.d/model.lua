-- SPDX-License-Identifier: MIT
-- The entities of the demo: a package index as one would keep it in a database.

local regolith = require "regolith"

local field = regolith.field

local M = {}

local cached = { process = true, redis = true }

M.KINDS = {
  "Depends", "Pre-Depends", "Recommends", "Suggests", "Enhances", "Breaks", "Conflicts", "Replaces", "Provides",
}

M.Maintainer = regolith.entity("maintainer", {
  field.string "address" { length = 190, required = true, unique = true },
  field.string "email" { length = 190, nullable = true },
  cache = cached,
})

M.Section = regolith.entity("section", {
  field.string "name" { length = 80, required = true, unique = true },
  cache = cached,
})

M.Package = regolith.entity("package", {
  field.string "name" { length = 120, required = true },
  field.string "version" { length = 100, required = true },
  field.string "arch" { length = 20, required = true },
  field.ref "maintainer" { M.Maintainer },
  field.ref "section" { M.Section },
  field.enum "priority" { "optional", "required", "important", "standard", "extra" },
  field.uint64 "size",
  field.uint64 "installed_kib",
  field.string "summary" { length = 500 },
  field.string "homepage" { length = 300, nullable = true },
  unique = { release = { "name", "version", "arch" } },
  index = { by_section = { "section", "size" } },
  cache = cached,
})

M.Dependency = regolith.entity("dependency", {
  field.ref "package" { M.Package },
  field.string "name" { length = 190, required = true },
  field.enum "kind"(M.KINDS),
  field.uint16 "clause", -- alternatives of one clause share its number
  field.string "constraint" { length = 120, nullable = true, column = "version_constraint" },
  index = { by_package = { "package" }, by_name = { "name" } },
})

M.ENTITIES = { M.Maintainer, M.Section, M.Package, M.Dependency }

--- An ORM with a process cache of its own.
function M.open()
  return assert(regolith.open {
    mysql = { socket = os.getenv "REGOLITH_MYSQL_SOCKET", user = "root", db = os.getenv "REGOLITH_MYSQL_DB" },
    redis = { socket = os.getenv "REGOLITH_REDIS_SOCKET" },
    entities = M.ENTITIES,
    process_cache = { apart = true }, -- each stands for a program of its own
  })
end

return M
