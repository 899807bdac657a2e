-- SPDX-License-Identifier: MIT
-- Cases of writes on condition, batches and hooks that need a look of their own, by their numbers.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local field, must, null = regolith.field, support.must, regolith.null
local seen, on_update = {}, nil

local Team = regolith.entity("team", { field.string "name" { length = 40 } })
local Page = regolith.entity("page", {
  field.string "url" { length = 60 },
  field.int32 "n" { nullable = true }, field.uint16 "small", field.json "tags" { nullable = true },
  field.binary "buf" { length = 20, nullable = true }, field.date "day" { nullable = true },
  field.datetime "ts" { nullable = true }, field.time "span" { nullable = true },
  field.decimal "money" { precision = 20, scale = 4, nullable = true },
  field.enum "state" { "new", "open" }, field.set "flags" { "a", "b", "c" }, field.refs "teams" { Team },
  field.struct "place" { field.string "city" { nullable = true }, field.int32 "floor" },
  field.datetime "touched" { updated = true },
  unique = { url = { "url" }, pair = { "n", "small" } },
})
local function note(name)
  return function(text) seen[#seen + 1] = name .. " " .. tostring(text.name) end
end
local Text = regolith.entity("text", {
  field.string "headline" { length = 10, required = true }, field.string "name" { length = 10 }, field.uint32 "n",
  hooks = {
    before_insert = function(text)
      assert(text.id > 0)
      note "before_insert"(text)
      text.name = text.name .. "+"
    end,
    validate = note "validate",
    after_insert = note "after_insert", after_update = note "after_update",
    before_update = function(text, session)
      note "before_update"(text)
      if on_update then on_update(text, session) end
    end,
  },
})
local Ver = regolith.entity("ver", { field.int32 "n", field.uint32 "v" { version = true } })

describe("cas, case", function()
  local world, orm, db, other

  setup(function()
    world = support.world()
    orm = world:open { Team, Page, Text, Ver }
  end)
  teardown(function() world:close() end)
  before_each(function()
    db, other, seen, on_update = orm:session(), orm:session(), {}, nil
  end)
  after_each(function()
    db:close()
    other:close()
  end)

  local count = 0

  local function page(values)
    count = count + 1
    values = values or {}
    values.url, values.n = values.url or "u" .. count, values.n or count
    local e = must(db:new(Page, values))
    must(db:flush())
    return e
  end

  local function as_stored(e, entity) return must(orm:session():get(entity or Page, e.id)) end

  --- What fn writes: the statements, without what a server's flavour puts before them.
  local function writes(fn, verb)
    local list = {}
    for _, text in ipairs(support.count(orm, fn).texts) do
      text = text:gsub("^SET STATEMENT .- FOR ", "")
      if text:find("^" .. verb) then list[#list + 1] = text end
    end
    return list
  end

  local function make_old(e)
    must(db:execute("UPDATE page SET touched = '2000-01-01' WHERE id = ?", e.id))
    must(db:reload(e))
  end

  it("3, 11: a miss leaves the row's time of change as well; the time itself can be expected", function()
    local e = page { small = 1 }
    make_old(e)
    local answer = must(db:update(e, { small = 2 }, { cas = { small = 9, touched = e.touched } }))
    assert.same({ "conflict", { "small" } }, { answer.outcome, answer.differs })
    assert.same({ 1, "2000-01-01 00:00:00" }, { as_stored(e).small, as_stored(e).touched:sub(1, 19) })
    must(other:update(must(other:get(Page, e.id)), { state = "open" }))
    answer = must(db:update(e, { small = 2 }, { cas = { "touched" } }))
    assert.same({ "conflict", { "touched" } }, { answer.outcome, answer.differs })
    must(db:reload(e))
    assert.is_true(must(db:update(e, { small = 2 }, { cas = { "touched" } })).applied)
    assert.is_true(must(db:update(e, { small = 3 }, { cas = { "touched" } })).applied) -- it is read back
  end)

  it("24: what is the same said otherwise is unchanged", function()
    local e = page { tags = { a = { 1, { b = "x" } }, c = true }, buf = "\1\0\2", day = "2026-02-28",
      ts = "2026-01-01 00:00:00.5", span = "-01:00:00.25", money = "1.5000", flags = { "a", "c" }, teams = { 3, 1 },
      place = { city = "Ulm", floor = 2 } }
    local counts = support.count(orm, function()
      for _, changes in ipairs {
        { tags = { c = true, a = { 1, { b = "x" } } } }, { buf = "\1\0\2" }, { day = "2026-02-28" },
        { ts = "2026-01-01T00:00:00.500Z" }, { span = "-01:00:00.250000" }, { money = 1.5 }, { money = "1.50" },
        { flags = { "c", "a" } }, { teams = { 3, 1 } }, { place = { city = "Ulm", floor = 2 } },
      } do
        local names, err = db:update_changed(e, changes, { cas = "changes" })
        assert.same({ nil, nil }, { names, err })
      end
    end)
    assert.equal(0, counts.mysql)
    assert.same({ "teams" }, must(db:update_changed(e, { teams = { 1, 3 } })))
    assert.same({ "tags" }, must(db:update_changed(e, { tags = { c = true, a = { { b = "x" }, 1 } } })))
    assert.same({ "day" }, must(db:update_changed(e, { day = null })))
    assert.same({ "day" }, must(db:update_changed(e, { day = "2026-02-28" })))
  end)

  it("25, 34: what is no field is refused, as is a condition with nothing to write that is not met", function()
    local e = page()
    for _, changes in ipairs { { gone = 1 }, { gone = 1, small = 2 } } do
      assert.has_error(function() db:update(e, changes) end)
      assert.has_error(function() db:update_changed(e, changes) end)
    end
    assert.equal(0, as_stored(e).small)
    must(other:execute("DELETE FROM page WHERE id = ?", e.id))
    assert.is_true(must(db:update(e, {}, { cas = { "small" } })).missing)
  end)

  it("26: what is not named stays as others have made it; null is NULL", function()
    local e = page { small = 4, day = "2026-01-01" }
    must(other:execute("UPDATE page SET small = 77 WHERE id = ?", e.id))
    local texts = writes(function()
      must(db:update(e, { day = null, small = nil }))
      assert.same({ "ts" }, must(db:update_changed(e, { ts = "2026-01-01", small = nil, day = null })))
    end, "UPDATE")
    for _, text in ipairs(texts) do assert.is_nil(text:find("small", 1, true)) end
    assert.same({ 77, "2026-01-01 00:00:00" }, { as_stored(e).small, as_stored(e).ts })
    assert.is_nil(as_stored(e).day)
  end)

  it("27: 190 rows are inserted in two statements or fewer, their ids in none", function()
    local list = {}
    for i = 1, 190 do list[i] = { name = "t" .. i } end
    must(db:insert_all(Team, { { name = "first" } })) -- takes a block of ids
    local counts = support.count(orm, function()
      for _, answer in ipairs(must(db:insert_all(Team, list))) do assert.is_true(answer.applied) end
    end)
    local inserts = 0
    for _, text in ipairs(counts.texts) do
      if text:find "^INSERT INTO `team`" then inserts = inserts + 1 end
    end
    assert.is_true(inserts <= 3, inserts)
  end)

  it("29: deletes are one statement", function()
    local a, b = page(), page()
    local fresh = orm:session()
    local texts = writes(function() must(fresh:delete_all(Page, { a.id, b.id, 4242424242, null })) end, "DELETE")
    assert.equal(1, #texts)
    fresh:close()
  end)

  it("33: writes of different columns are a statement each, and all of them count the time of change", function()
    local list, pages = {}, {}
    for i = 1, 30 do
      pages[i] = page()
      make_old(pages[i])
      list[i] = { pages[i], ({ { small = 2 }, { state = "open" }, { small = 3, state = "open" } })[i % 3 + 1] }
    end
    local texts = writes(function() must(db:update_all(list)) end, "UPDATE")
    assert.equal(3, #texts)
    for _, text in ipairs(texts) do assert.truthy(text:find("touched", 1, true)) end
    for _, e in ipairs(pages) do assert.is_true(as_stored(e).touched > "2001") end
  end)

  it("36: upserts of one key from several processes and sessions are one row, and lose nothing", function()
    local E = require("support.programs.shared").Counter
    local own, processes = world:open(require("support.programs.shared").list()), {}
    for i = 1, 3 do
      processes[i] = faults.spawn("setter", { REGOLITH_MYSQL_URL = world.mysql_url(world.name),
        REGOLITH_REDIS_URL = world.redis_url(), REGOLITH_PREFIX = world.name }, "upsert", i, 40)
    end
    local made = 0
    for _, process in ipairs(processes) do
      local ok, text = process:wait(60)
      assert.is_true(ok, text)
      made = made + tonumber(text:match "done%s+(%d+)" or error(text))
    end
    local rows, n = must(db:query "SELECT tag, n FROM counter ORDER BY tag"), 0
    for _, row in ipairs(rows) do n = n + row.n end
    assert.same({ 5, made }, { #rows, n })
    local session = own:session()
    n = 0
    for _, it in ipairs(must(session:search(E, "tag IS NOT NULL"):all())) do n = n + it.n end
    assert.equal(made, n)
    session:close()
    world:shut(own)
  end)

  it("38: lists in conditions: none, NULL among them, and no condition", function()
    must(db:execute "DELETE FROM page")
    page { url = "zzz", day = "2026-01-01" }
    page { url = "yyy" }
    local function found(where, ...) return must(db:search(Page, where .. " ORDER BY url", ...):all()) end
    local all = #found "1 = 1"
    assert.equal(0, #found("url IN ?", {}))
    assert.equal(all, #found("url NOT IN ?", {}))
    assert.equal(0, #found("(url IN ? OR 1 = 0)", {}))
    assert.equal(1, #found("url IN ?", { "zzz", "none" }))
    assert.equal(1, #found("day IN ?", { null, "2026-01-01" })) -- as SQL has it: NULL equals nothing
    assert.equal(all, #found("(day IN ? OR day IS NULL)", { "2026-01-01" }))
    assert.equal(all, #must(db:search(Page, ""):all()))
    assert.equal(2, #must(db:search(Page, ""):limit(2):all()))
  end)

  it("40: hooks around an insert know its id, see what the ones before them made, and run in order", function()
    local text = must(db:new(Text, { headline = "h", name = "a" }))
    must(db:flush())
    assert.same({ "before_insert a", "validate a+", "after_insert a+" }, seen)
    assert.equal("a+", as_stored(text, Text).name)
  end)

  it("42: hooks around an update can tell what changes, however it is written", function()
    local text = must(db:new(Text, { headline = "h", name = "a" }))
    must(db:flush())
    local told
    on_update = function(e, session)
      local old, new = session:dirty(e)
      told = { old.name, new.name, old.headline }
    end
    local ways = {
      flush = function(name)
        text.name = name
        return db:flush()
      end,
      update = function(name) return db:update(text, { name = name }) end,
      expecting = function(name) return db:update(text, { name = name }, { cas = "changes" }) end,
      update_changed = function(name) return db:update_changed(text, { name = name, headline = "h" }) end,
      update_all = function(name) return db:update_all { { text, { name = name } } } end,
      flush_async = function(name)
        text.name = name
        return db:flush_async()
      end,
    }
    local before = "a+"
    for way, write in pairs(ways) do
      told, seen = nil, {}
      must(write(way:sub(1, 9)))
      assert.same({ before, way:sub(1, 9) }, told, way)
      before = way:sub(1, 9)
      assert.same({ "before_update " .. before, "validate " .. before, "after_update " .. before }, seen)
      support.drain(orm)
    end
  end)

  it("45: what a row has had wrong before does not hinder other changes; what is wrong now is named", function()
    local text = must(db:new(Text, { headline = "h", name = "a" }))
    must(db:flush())
    must(db:execute("UPDATE text SET headline = '' WHERE id = ?", text.id))
    must(db:reload(text))
    assert.equal("applied", must(db:update(text, { n = 5 })).outcome)
    text.n = 6
    must(db:flush())
    assert.equal(6, as_stored(text, Text).n)
    assert.equal("unchanged", must(db:update(text, { headline = "" })).outcome)
    for name, changes in pairs { name = { name = ("x"):rep(11), n = 7 }, headline = { headline = null, n = 7 } } do
      local answer, err = db:update(text, changes)
      assert.same({ nil, "INVALID", name }, { answer, err.code, err.field })
    end
    text.headline, text.name = "fine", ("x"):rep(11)
    local ok, err = db:flush()
    assert.same({ nil, "INVALID", "name" }, { ok, err.code, err.field })
    db:discard()
    text.headline = "fine"
    must(db:flush())
    text.headline = ""
    ok, err = db:flush()
    assert.same({ nil, "INVALID", "headline" }, { ok, err.code, err.field })
    db:discard()
  end)

  it("46: the id of a deleted row can be used again, that of one that is there cannot", function()
    local team = must(db:new(Team, { name = "old" }))
    must(db:flush())
    local id = team.id
    db:delete(team)
    must(db:flush())
    local again = must(db:insert_all(Team, { { id = id, name = "new" }, { id = id, name = "twice" } }))
    assert.same({ "applied", "failed" }, { again[1].outcome, again[2].outcome })
    assert.same({ id, "DUPLICATE_KEY", "PRIMARY" }, { again[1].entity.id, again[2].err.code, again[2].err.index })
    assert.equal("new", as_stored({ id = id }, Team).name)
  end)

  -- ---- what others get wrong ----------------------------------------------------------------------

  it("ABA: a value that is back is as expected, a version that has gone on is not", function()
    local e = must(db:new(Ver, { n = 1 }))
    must(db:flush())
    for _, n in ipairs { 2, 1 } do must(other:update(must(other:reload(must(other:get(Ver, e.id)))), { n = n })) end
    assert.same({ "v" }, must(db:update(e, { n = 5 }, { cas = "version" })).differs)
    assert.is_true(must(db:update(e, { n = 5 }, { cas = { n = 1 } })).applied)
    assert.equal(4, as_stored(e, Ver).v)
  end)

  it("a batch is one prepared text whatever its values and the order of its conditions", function()
    local pages = {}
    for i = 1, 8 do pages[i] = page() end
    local texts = writes(function()
      for round = 1, 2 do
        local list = {}
        for i, e in ipairs(pages) do
          local cas = {}
          if i % 2 == 0 then cas.small, cas.state = e.small, "new" else cas.state, cas.small = "new", e.small end
          list[i] = { e, { small = round * 10 + i }, cas = cas }
        end
        for _, answer in ipairs(must(db:update_all(list))) do assert.is_true(answer.applied) end
      end
    end, "UPDATE")
    assert.equal(2, #texts)
    assert.equal(texts[1]:gsub("%s*%-%-.*", ""), texts[2]:gsub("%s*%-%-.*", ""))
  end)

  it("hooks afterwards see the row as the server has made it", function()
    local text, n = must(db:new(Text, { headline = "h", name = "a", n = 1 })), nil
    must(db:flush())
    must(other:execute("UPDATE text SET n = 40 WHERE id = ?", text.id))
    on_update = function() n = text.n end
    must(db:update(text, { n = regolith.increment(2) }))
    assert.same({ 1, 42 }, { n, text.n })
  end)
end)

local Region = regolith.entity("region", { field.string "name" { length = 20, required = true } })
local Branch = regolith.entity("branch", {
  field.string "name" { length = 40, required = true },
  field.ref "region" { Region },
  shards = { "s0", "s1", inverse = { "region" } },
  index = { by_region = { "region" } },
})

describe("cas, case", function()
  local worlds, world, orm, db, proxy, region

  local function say(word) proxy:say(word) end

  setup(function()
    worlds = { support.world(), support.world() }
    world = support.world()
    proxy = faults.proxy()
    orm = world:open({ Region, Branch }, { mysql = { default = world.mysql_url(world.name),
      s0 = world.mysql_url(worlds[1].name),
      s1 = proxy:url(worlds[2].name) } })
  end)
  teardown(function()
    say "pass"
    world:close()
    proxy:stop()
    for _, w in ipairs(worlds) do w:close() end
  end)
  before_each(function()
    db = orm:session()
    region = must(db:new(Region, { name = "r" }))
    must(db:flush())
  end)
  after_each(function()
    say "pass"
    db:close()
  end)

  --- How many branches of the region are found by way of its inverses, by somebody else.
  local function found()
    local fresh = orm:session()
    local n = #must(fresh:all_by(Branch, "by_region", region.id))
    fresh:close()
    return n
  end

  local function rows(name)
    return tonumber(must(db:query({ "SELECT COUNT(*) AS n FROM branch WHERE name = ?", pool = "s1" }, name))[1].n)
  end

  it("44, 46: inverses stay when an insert fails or finds its id taken; a hook that refuses leaves none", function()
    local one = must(db:new(Branch, { name = "one" .. region.id, region = region }, { shard = 0 }))
    must(db:flush())
    local answers = must(db:insert_all(Branch, { { id = one.id, name = "two" .. region.id, region = region.id } }))
    assert.equal("DUPLICATE_KEY", answers[1].err.code)
    assert.equal(1, found())
    db:delete(one)
    must(db:flush())
    assert.equal(0, found())
    answers = must(db:insert_all(Branch, { { id = one.id, name = "three" .. region.id, region = region.id } }))
    assert.same({ true, one.id }, { answers[1].applied, answers[1].entity.id })
    assert.equal(1, found())
  end)

  it("49: an insert whose answer is lost is found to be made, or said to be unknown; its inverse stays", function()
    local ways = {
      flush = function(name)
        must(db:new(Branch, { name = name, region = region }, { shard = 1 }))
        return db:flush()
      end,
      insert_all = function(name)
        local id = must(db:query({ "SELECT MAX(id) + 1000000 AS id FROM branch", pool = "s1" }))[1].id
        local answer = must(db:insert_all(Branch, { { id = id, name = name, region = region } }))[1]
        return answer.applied, answer.err
      end,
    }
    local told, n = {}, 0
    for way, insert in pairs(ways) do
      for _, when in ipairs { "after", "before" } do
        local name = way .. " " .. when
        must(db:new(Branch, { name = "warm", region = region }, { shard = 1 }))
        must(db:flush()) -- statements are prepared, the next thing that is sent is the insert
        must(db:query({ "SELECT MAX(id) + 1 AS id FROM branch", pool = "s1" }))
        say(string.format("cut %d %s", way == "flush" and 1 or 2, when))
        local ok, err = insert(name)
        say "pass"
        told[name] = ok and "made" or err.code
        if not ok then
          assert.is_true(err.code == "COMMIT_UNKNOWN" or err.retriable, err)
          if way == "flush" then ok, err = db:flush() else ok, err = insert(name) end
          assert.is_true(ok or err.code == "DUPLICATE_KEY", err)
          db:discard()
        end
        n = n + 1
        assert.equal(1, rows(name), name)
        assert.equal(2 * n, found())
      end
    end
    assert.same({ "made", "made" }, { told["insert_all after"], told["insert_all before"] }) -- its id tells
  end)
end)
