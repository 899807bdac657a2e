-- SPDX-License-Identifier: MIT
-- Fills an empty database with what dpkg says: once, whoever starts it.

local model = require "model"
local regolith = require "regolith"

--- Calls fn with the fields of each stanza of dpkg's file.
local function each(path, fn)
  local fields = {}
  for line in io.lines(path) do
    if line == "" then
      if fields.Package then fn(fields) end
      fields = {}
    else
      local name, value = line:match "^([%w-]+):%s*(.-)%s*$"
      if name then fields[name] = value end
    end
  end
end

local orm = assert(regolith.open { entities = model.ENTITIES })
assert(orm:schema_apply())
local db = orm:session()
if db:search(model.Package, "1 = 1"):count() == 0 then
  local sections = {}
  each("/var/lib/dpkg/status", function(fields)
    local name = fields.Section or "unknown"
    sections[name] = sections[name] or assert(db:new(model.Section, { name = name }))
    assert(db:new(model.Package, {
      name = fields.Package, arch = fields.Architecture or "all", version = fields.Version or "",
      section = sections[name],
      installed_kib = tonumber(fields["Installed-Size"]) or 0, summary = fields.Description or "",
    }))
  end)
  assert(db:flush())
end
print(string.format("%d packages", db:search(model.Package, "1 = 1"):count()))
orm:close()
