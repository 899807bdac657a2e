-- SPDX-License-Identifier: MIT
-- What an application does with the data: reads through each tier, searches, changes, failures.

local model = require "model"
local screen = require "screen"

local M = {}

local SAMPLE, MANY = 5000, 100

-- ---- reads --------------------------------------------------------------------------------------

--- Counters of the tiers that an ORM has asked so far.
local function counters(orm)
  return {
    process = orm:counter "regolith_process_cache_hits_total",
    redis = orm:counter "regolith_redis_cache_hits_total",
    mysql = orm:counter "regolith_mysql_rows_read_total",
  }
end

--- Reads the packages of those ids in steps of MANY, each in a session of its own.
local function read(orm, ids)
  for first = 1, #ids, MANY do
    local db, some = orm:session(), {}
    for i = first, math.min(first + MANY - 1, #ids) do some[#some + 1] = ids[i] end
    local found = assert(db:get_many(model.Package, some))
    for i = 1, found.n do assert(found[i].name ~= "", "a package has no name") end
    db:close()
  end
  return #ids
end

--- The same, timed, and says which tier has answered.
local function read_from(orm, ids, tier)
  local before = counters(orm)
  screen.timed("packages read from " .. tier, "rows", function() return read(orm, ids) end)
  local after = counters(orm)
  screen.say("  %d packages: %d from the process cache, %d from Redis, %d from MySQL", #ids,
    after.process - before.process, after.redis - before.redis, after.mysql - before.mysql)
  screen.check("answered by " .. tier, after[tier:lower()] - before[tier:lower()], #ids)
end

--- A process cache is in use once invalidations are known to arrive.
local function await_coherence(orm)
  local db, deadline = orm:session(), screen.now() + 5
  assert(not db:get(model.Package, 2 ^ 52), "a package with an id that is none")
  while not orm:stats().coherent do assert(screen.now() < deadline, "the process cache is not in use") end
  db:close()
end

local function sample_ids(orm)
  local db = orm:session()
  local ids = assert(db:search(model.Package, "1 = 1 ORDER BY name, version, arch"):limit(SAMPLE):ids())
  db:close()
  return ids
end

--- The same packages through each tier: caches emptied; a process cache that has seen nothing yet; that
--- cache again, once the news that Redis was filled has come in (it drops what is being read meanwhile).
function M.reads(orm)
  screen.title "reading the same packages from each tier"
  local ids = sample_ids(orm)
  assert(orm:invalidate(model.Package))
  read_from(orm, ids, "MySQL")
  local other = model.open()
  await_coherence(other)
  read_from(other, ids, "Redis")
  read(other, ids)
  read_from(other, ids, "process")
  other:close()
end

-- ---- searches and references --------------------------------------------------------------------

--- The name of the section with the most packages.
local function largest_section(db)
  local rows = assert(db:query [[
    SELECT s.name FROM section s JOIN package p ON p.section_id = s.id
    GROUP BY s.id ORDER BY COUNT(*) DESC, s.id LIMIT 1]])
  return rows[1].name
end

function M.search(orm)
  local db = orm:session()
  local section = assert(db:by(model.Section, "name", largest_section(db)))
  screen.title(string.format("a search: the largest packages of section %s, page 2", section.name))
  local largest = db:search(model.Package, "section_id = ? ORDER BY size DESC, id", section.id)
  local page, total = largest:page_with_count(2, 5)
  assert(page, total)
  for _, package in ipairs(page) do
    screen.say("  %-28s %9s KiB  %s", package.name, screen.number(package.size / 1024), package.maintainer.address)
  end
  screen.say("  (5 of %s)", screen.number(total))
  screen.check("packages on the page", #page, 5)
  local package = page[1]
  local needs = assert(db:all_by(model.Dependency, "by_package", package))
  screen.say("  %s is related to %d others%s", package.name, #needs,
    needs[1] and string.format("; the first is %s (%s)", needs[1].name, needs[1].kind) or "")
  db:close()
end

-- ---- writes -------------------------------------------------------------------------------------

--- A change made here is seen at once by another ORM, whose process cache had the row.
function M.update(orm)
  screen.title "an update"
  local other = model.open()
  local db, watcher = orm:session(), other:session()
  local id = assert(db:search(model.Package, "name IN ?", { "bash", "dpkg" }):ids())[1]
  local seen = assert(watcher:get(model.Package, id))
  local package = assert(db:get(model.Package, id))
  package.summary = package.summary .. " (changed)"
  package.installed_kib = package.installed_kib + 1
  local old, new = db:dirty(package)
  screen.say("  %s: installed_kib %d -> %d, summary '%s' -> '%s'", package.name, old.installed_kib,
    new.installed_kib, old.summary, new.summary)
  assert(db:flush())
  local again = other:session()
  screen.check("what another cache says now", assert(again:get(model.Package, id)).installed_kib,
    seen.installed_kib + 1)
  for _, session in ipairs { db, watcher, again } do session:close() end
  other:close()
end

function M.delete(orm)
  screen.title "a delete: one package and its dependencies, in one transaction"
  local db = orm:session()
  local package = db:search(model.Package, "name = ?", "cowsay"):one()
    or assert(db:search(model.Package, "1 = 1"):one())
  local needs = assert(db:all_by(model.Dependency, "by_package", package))
  for _, dependency in ipairs(needs) do db:delete(dependency) end
  db:delete(package)
  local _, rows = assert(db:flush())
  db:close()
  db = orm:session()
  screen.check("rows deleted", rows, #needs + 1)
  screen.check("the package " .. package.name .. " afterwards", db:get(model.Package, package.id), nil)
  db:close()
end

-- ---- failures -----------------------------------------------------------------------------------

function M.duplicate(orm)
  screen.title "a duplicate key: the flush fails as a whole, the session is as before"
  local db = orm:session()
  assert(db:new(model.Section, { name = "brand-new" }))
  assert(db:new(model.Section, { name = largest_section(db) }))
  local ok, err = db:flush()
  screen.check("flush", ok, nil)
  screen.say("  %s", tostring(err))
  screen.check("err.code", err.code, "DUPLICATE_KEY")
  screen.check("err.index", err.index, "name")
  db:discard()
  screen.check("sections called brand-new", assert(db:search(model.Section, "name = ?", "brand-new"):count()), 0)
  db:close()
end

--- A unique value that is taken is refused at once. One that the database alone knows of, as a program
-- wrote it that tells nobody, makes a dead letter of a queued insert; it is shown, its cause removed, and it
-- is tried again.
function M.dead_letter(orm)
  screen.title "a dead letter"
  local db = orm:session()
  local name, unknown = largest_section(db), "written-by-another-program"
  local twin = assert(db:new(model.Section, { name = name }))
  local queued, refusal = db:flush_async()
  screen.check("queueing a name that is taken", queued, nil)
  screen.check("err.code", refusal.code, "DUPLICATE_KEY")
  db:discard(twin)
  local other = 2 ^ 52
  assert(db:execute("INSERT INTO section (id, name) VALUES (?, ?)", other, unknown))
  local late = assert(db:new(model.Section, { name = unknown }))
  assert(db:flush_async())
  assert(orm:drained(10000))
  local letter = assert(orm:dead_letters())[1]
  assert(letter, "there is no dead letter")
  screen.say("  number %d: %s %s %s: %s", letter.number, letter.operation, letter.entity, tostring(letter.entity_id),
    letter.error)
  screen.check("errno", tonumber(letter.errno), 1062)
  screen.check("its value of name", assert(orm:dead_letter(letter.number)).values.name, unknown)
  assert(db:execute("DELETE FROM section WHERE id = ?", other))
  screen.check("left after a retry", assert(orm:retry(letter.number)), 0)
  db:close()
  db = orm:session()
  screen.check("the late section", assert(db:get(model.Section, late.id)).name, unknown)
  db:close()
end

return M
