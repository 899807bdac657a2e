-- SPDX-License-Identifier: MIT
-- Compares what is in MySQL with what an independent pass of awk over the same index finds: counts, and
-- checksums of every package and every dependency.

local screen = require "screen"

local RELATIONS_A_PAGE = 50000

local M = {}

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function read(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

--- A checksum of the lines of a file, in whatever order they are.
local function checksum(path) return read("LC_ALL=C sort " .. quote(path) .. " | md5sum"):match "^%x+" end

local function truth(index, folder)
  local script = os.getenv "REGOLITH_ROOT" .. "/scripts/demo.d/truth.awk"
  local packages, relations = folder .. "/packages.awk", folder .. "/relations.awk"
  local answer = {}
  local text = read(string.format("LC_ALL=C awk -v packages=%s -v relations=%s -f %s %s", quote(packages),
    quote(relations), quote(script), quote(index)))
  for key, value in text:gmatch "(%w+)=(%d+)" do answer[key] = tonumber(value) end
  answer.packages_sum, answer.relations_sum = checksum(packages), checksum(relations)
  return answer
end

--- Appends the rows of a query to a file, a line each.
local function write_rows(file, rows)
  for _, row in ipairs(rows) do file:write(row.line, "\n") end
end

local function packages_sum(db, folder)
  local path = folder .. "/packages.sql"
  local file = assert(io.open(path, "w"))
  write_rows(file, assert(db:query [[
    SELECT CONCAT_WS('|', p.name, p.version, p.arch, s.name, m.address) AS line
    FROM package p JOIN section s ON s.id = p.section_id JOIN maintainer m ON m.id = p.maintainer_id]]))
  file:close()
  return checksum(path)
end

local function relations_sum(db, folder)
  local path = folder .. "/relations.sql"
  local file = assert(io.open(path, "w"))
  local last = assert(db:query "SELECT MAX(id) AS id FROM dependency")[1].id or 0
  for from = 0, last, RELATIONS_A_PAGE do
    write_rows(file, assert(db:query([[
      SELECT CONCAT_WS('|', p.name, p.version, p.arch, d.kind, d.clause, d.name,
        IFNULL(d.version_constraint, '')) AS line
      FROM dependency d JOIN package p ON p.id = d.package_id WHERE d.id > ? AND d.id <= ?]],
      from, from + RELATIONS_A_PAGE)))
  end
  file:close()
  return checksum(path)
end

local function count(db, table_name)
  return tonumber(assert(db:query("SELECT COUNT(*) AS n FROM " .. table_name))[1].n)
end

--- Everything that was queued is in MySQL, and nothing else.
function M.all(orm, index, folder)
  local want = truth(index, folder)
  local db = orm:session()
  screen.check("packages", count(db, "package"), want.packages)
  screen.check("dependencies", count(db, "dependency"), want.dependencies)
  screen.check("distinct maintainers", count(db, "maintainer"), want.maintainers)
  screen.check("distinct sections", count(db, "section"), want.sections)
  screen.check("bytes of all packages", tonumber(assert(db:query "SELECT SUM(size) AS n FROM package")[1].n), want.size)
  screen.check("md5 of all packages", packages_sum(db, folder), want.packages_sum)
  screen.check("md5 of all dependencies", relations_sum(db, folder), want.relations_sum)
  db:close()
  return want.packages + want.dependencies
end

return M
