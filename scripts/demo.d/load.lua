-- SPDX-License-Identifier: MIT
-- Streams the index through entities into the queue: one flush_async a handful of packages.

local model = require "model"
local screen = require "screen"
local source = require "source"

local PACKAGES_A_FLUSH = 40

local M = {}

---@class demo.Loader
local Loader = {}
Loader.__index = Loader

--- The id of the one maintainer or section of that name, made when it is first met.
local function id_of(self, known, Entity, values, key)
  local id = known[key]
  if not id then
    id = assert(self.db:new(Entity, values)).id
    known[key] = id
    self.ops = self.ops + 1
  end
  return id
end

local function maintainer(self, address)
  return id_of(self, self.maintainers, model.Maintainer, { address = address, email = address:match "<(.-)>" }, address)
end

local function section(self, name) return id_of(self, self.sections, model.Section, { name = name }, name) end

local function add_package(self, fields)
  local package = assert(self.db:new(model.Package, {
    name = fields.Package, version = fields.Version, arch = fields.Architecture,
    maintainer = maintainer(self, fields.Maintainer or "unknown"), section = section(self, fields.Section or "unknown"),
    priority = fields.Priority or "optional", size = tonumber(fields.Size) or 0,
    installed_kib = tonumber(fields["Installed-Size"]) or 0,
    summary = fields.Description or "", homepage = fields.Homepage,
  }))
  self.packages, self.ops = self.packages + 1, self.ops + 1
  return package.id
end

local function add_dependencies(self, id, fields)
  for _, kind in ipairs(model.KINDS) do
    if fields[kind] then
      source.each_relation(fields[kind], function(name, constraint, clause)
        assert(self.db:new(model.Dependency,
          { package = id, name = name, kind = kind, clause = clause, constraint = constraint }))
        self.dependencies, self.ops = self.dependencies + 1, self.ops + 1
      end)
    end
  end
end

--- Queues what the session holds, and begins another session: what was queued needs no memory here.
local function flush(self)
  assert(self.db:flush_async())
  self.db:close()
  self.db = self.orm:session()
end

local function file_size(path)
  local file = assert(io.open(path))
  local size = file:seek "end"
  file:close()
  return size
end

--- Queues the whole index; what was counted.
---@return { packages: number, dependencies: number, ops: number, seconds: number }
function M.queue(orm, path)
  local self = setmetatable({
    orm = orm, db = orm:session(), maintainers = {}, sections = {}, packages = 0, dependencies = 0, ops = 0,
  }, Loader)
  local progress = screen.progress("queueing", file_size(path))
  local function note()
    return string.format("%s packages, %s dependencies, %s operations/s", screen.number(self.packages),
      screen.number(self.dependencies), screen.number(self.ops / (screen.now() - progress.started)))
  end
  source.each(path, function(fields, bytes)
    add_dependencies(self, add_package(self, fields), fields)
    if self.packages % PACKAGES_A_FLUSH == 0 then
      flush(self)
      progress:at(bytes, note)
    end
  end)
  flush(self)
  self.db:close()
  self.seconds = progress:done(note())
  return self
end

--- Does that process still run? One that has ended stays a zombie until its parent looks.
local function runs(pid)
  local file = io.open("/proc/" .. pid .. "/stat")
  if not file then return false end
  local state = file:read "*a":match "%) (%a)"
  file:close()
  return state ~= "Z"
end

--- Shows what the consumer has left until nothing is.
function M.wait(orm, total, consumer)
  local progress = screen.progress("applying", total)
  while true do
    local ok, err = orm:drained(200)
    if ok then break end
    if err.code ~= "TIMEOUT" then error(err) end
    if not runs(consumer) then error("the consumer has ended", 0) end
    local queue = assert(orm:queues())[1]
    progress:at(queue.applied, function()
      return string.format("%s operations, %s flushes left", screen.number(queue.applied), screen.number(queue.length))
    end)
  end
  progress:done(screen.number(total) .. " operations")
end

return M
