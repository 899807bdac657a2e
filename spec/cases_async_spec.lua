-- SPDX-License-Identifier: MIT
-- The asynchronous flush, case by case (31 to 35), and what hooks may do (46).

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local must = support.must
local field = regolith.field

local Cached = regolith.entity("cached", {
  field.string "name" { required = true, unique = true },
  field.uint32 "n" { index = true, cached = true },
  cache = { process = true, redis = true, all = true },
})
local Bare = regolith.entity("bare", {
  field.string "name" { required = true, unique = true },
  field.uint32 "n",
})
local Line = regolith.entity("line", { field.uint32 "n", field.string "text" { length = 20 },
  unique = { n = { "n" } } })

describe("the queue", function()
  local world, orm, db, redis, stream

  setup(function()
    world = support.world()
    orm = world:open { Cached, Bare, Line }
    redis = faults.redis()
    stream = must(orm:queues())[1].stream
  end)
  teardown(function()
    redis:close()
    world:close()
  end)

  before_each(function() db = orm:session() end)
  after_each(function()
    db:close()
    support.drain(orm)
    must(orm:drop "all")
    local admin = orm:session()
    for _, E in ipairs { Cached, Bare, Line } do
      must(admin:execute("DELETE FROM `" .. E.name .. "`"))
      must(orm:invalidate(E))
    end
    admin:close()
  end)

  it("shows a queued insert of a cached entity at once, of another one once it is applied (31)", function()
    local a, b = db:new(Cached, { name = "a", n = 7 }), db:new(Bare, { name = "b" })
    must(db:flush_async())
    local counts = support.count(orm, function()
      assert.equal("a", orm:session():get(Cached, a.id).name)
      assert.equal("a", orm:session():get_many(Cached, { a.id })[1].name)
    end)
    assert.equal(0, counts.mysql)
    assert.equal(a.id, orm:session():by(Cached, "name", "a").id)
    assert.equal(a.id, orm:session():all_by(Cached, "n", 7)[1].id)
    assert.equal(a.id, orm:session():all(Cached)[1].id)
    assert.equal(b.id, orm:session():by(Bare, "name", "b").id)
    assert.is_nil((orm:session():get(Bare, b.id)))
    assert.equal(0, orm:session():search(Cached, "1 = 1"):count())
    assert.equal(2, support.drain(orm))
    assert.equal("b", orm:session():get(Bare, b.id).name)
    assert.equal(1, orm:session():search(Cached, "1 = 1"):count())
    assert.equal(a.id, orm:session():by(Cached, "name", "a").id)
    assert.equal(0, redis:call("XLEN", stream))
  end)

  it("shows queued changes and deletions in every kind of read", function()
    local a, b = db:new(Cached, { name = "a", n = 1 }), db:new(Cached, { name = "b", n = 1 })
    must(db:flush())
    for _, warm in ipairs { false, true } do
      if warm then
        orm:session():all_by(Cached, "n", 1)
        orm:session():all_by(Cached, "n", 2)
      end
      a.n, a.name = a.n + 1, a.name .. "x"
      must(db:flush_async())
    end
    db:delete(b)
    must(db:flush_async())
    for _, applied in ipairs { false, true } do
      if applied then assert.equal(3, support.drain(orm)) end
      local other = orm:session()
      assert.same({ "axx", 3 }, { other:get(Cached, a.id).name, other:get(Cached, a.id).n })
      assert.is_nil((other:get(Cached, b.id)))
      assert.is_nil((other:by(Cached, "name", "a")))
      assert.is_nil((other:by(Cached, "name", "ax")))
      assert.is_nil((other:by(Cached, "name", "b")))
      assert.equal(a.id, other:by(Cached, "name", "axx").id)
      assert.same({ 0, 0, 1 }, { #other:all_by(Cached, "n", 1), #other:all_by(Cached, "n", 2),
        #other:all_by(Cached, "n", 3) })
      assert.equal(1, #other:all(Cached))
      other:close()
    end
  end)

  it("makes dead letters of what cannot be read and of what MySQL refuses, and is empty then (33)", function()
    must(orm:session():execute "INSERT INTO bare (id, name) VALUES (900001, 'taken')")
    for _, garbage in ipairs { "", "x", "\0\1\2\3", ("\255"):rep(5000), "DROP TABLE bare" } do
      must(redis:call("XADD", stream, "*", "d", garbage))
    end
    must(redis:call("XADD", stream, "*", "other", "field"))
    must(redis:call("XADD", stream, "*", "d", "", "d", "twice"))
    db:new(Bare, { name = "taken" })
    must(db:flush_async())
    local good = db:new(Bare, { name = "good" })
    must(db:flush_async())
    assert.equal(9, support.drain(orm))
    assert.equal(0, redis:call("XLEN", stream))
    local letters = must(orm:dead_letters())
    assert.equal(8, #letters)
    for i = 1, 7 do assert.equal("entry", letters[i].operation) end
    assert.same({ "insert", 1062, "bare" }, { letters[8].operation, letters[8].errno, letters[8].entity })
    assert.equal("good", orm:session():get(Bare, good.id).name)
    assert.equal(0, must(orm:drop "all"))
    assert.same({}, must(orm:dead_letters()))
  end)

  it("leaves what could not be applied for now to the next consumer (34)", function()
    local line = db:new(Line, { n = 1 })
    must(db:flush_async())
    must(orm:session():connection(function(conn)
      must(conn:execute "LOCK TABLES line WRITE")
      local hasty = must(regolith.open(world:config({ Line }, { timeout_ms = 1000 })))
      local consumer = must(hasty:consumer { max_tries = 1 })
      local applied, err = consumer:step(0)
      assert.is_nil(applied)
      assert.is_true(err.retriable)
      consumer:close()
      hasty:close()
      return true
    end))
    assert.equal(1, redis:call("XLEN", stream))
    assert.equal(1, support.drain(orm))
    assert.equal(1, orm:session():get(Line, line.id).n)
    assert.same({}, must(orm:dead_letters()))
  end)

  it("applies 1010 operations in order, past duplicates and garbage (35)", function()
    for i = 1, 1010 do
      db:new(Line, { n = i, text = "first" })
      must(db:flush_async())
      if i == 500 then must(redis:call("XADD", stream, "*", "d", "garbage")) end
    end
    local reader = orm:session()
    for _, n in ipairs { 2005, 2700 } do
      must(reader:execute("INSERT INTO line (id, n, text) VALUES (?, ?, 'theirs')", 900000 + n, n))
      db:new(Line, { n = n, text = "twin" })
      must(db:flush_async())
    end
    assert.equal(1013, support.drain(orm))
    local rows = must(reader:query "SELECT n, text FROM line WHERE n <= 1010 ORDER BY id")
    assert.equal(1010, #rows)
    for i, row in ipairs(rows) do assert.same({ n = i, text = "first" }, row) end
    local letters = must(orm:dead_letters())
    assert.equal(3, #letters)
    assert.same({ "entry", "insert", "insert" },
      { letters[1].operation, letters[2].operation, letters[3].operation })
    assert.equal("twin", must(orm:dead_letter(letters[2].number)).values.text)
    assert.equal(0, redis:call("XLEN", stream))
  end)

  it("keeps two rows of three when one is a duplicate (35)", function()
    for _, name in ipairs { "a", "a", "b" } do db:new(Bare, { name = name }) end
    assert.equal("DUPLICATE_KEY", select(2, db:flush_async()).code) -- it is seen at once, and nothing is queued
    db:discard()
    must(db:execute "INSERT INTO bare (id, name) VALUES (900001, 'a')") -- of this one nobody knows
    for _, name in ipairs { "a", "b", "c" } do db:new(Bare, { name = name }) end
    must(db:flush_async())
    assert.equal(3, support.drain(orm))
    assert.same({ { name = "b" }, { name = "c" } },
      orm:session():query "SELECT name FROM bare WHERE id <> 900001 ORDER BY name")
    local letters = must(orm:dead_letters())
    assert.equal(1, #letters)
    assert.equal(1062, letters[1].errno)
  end)
end)

describe("case 46: hooks", function()
  local world, orm, db
  local told, refuse = {}, false
  local Article

  setup(function()
    local function set_slug(article) article.slug = article.title:lower():gsub("%s+", "-") end
    Article = regolith.entity("article", {
      field.string "title" { required = true }, field.string "slug" { required = true },
      field.datetime "added" { created = true }, field.datetime "modified" { updated = true },
      hooks = {
        before_insert = set_slug, before_update = set_slug,
        validate = function() if refuse then return false, "not today" end end,
        after_insert = function(article) told[#told + 1] = "insert " .. article.slug end,
        after_update = function(article) told[#told + 1] = "update " .. article.slug end,
        after_delete = function(article) told[#told + 1] = "delete " .. article.slug end,
      },
    })
    world = support.world()
    orm = world:open { Article }
    db = orm:session()
  end)
  teardown(function()
    db:close()
    world:close()
  end)

  for _, way in ipairs { "flush", "flush_async" } do
    it("change what is written, stop it, and hear of it afterwards: " .. way, function()
      told = {}
      local article = db:new(Article, { title = "Red Moon", modified = "2001-02-03 04:05:06" })
      must(db[way](db))
      assert.equal("2001-02-03 04:05:06", article.modified) -- set by hand: kept
      article.title = "Blue Moon"
      refuse = true
      local ok, err = db[way](db)
      assert.is_nil(ok)
      assert.same({ "HOOK", "validate", "article" }, { err.code, err.hook, err.entity })
      assert.matches("not today", err.message)
      refuse = false
      must(db[way](db))
      assert.is_true(article.modified > "2020")
      support.drain(orm)
      article.modified, article.title = "2002-03-04 05:06:07", "Blue moon"
      must(db[way](db))
      assert.equal("2002-03-04 05:06:07", article.modified) -- at an update, too
      support.drain(orm)
      assert.equal(article.modified, orm:session():search(Article, "id = ?", article.id):one().modified)
      article.title = "Blue Moon"
      must(db[way](db))
      assert.is_true(article.modified > "2020")
      support.drain(orm)
      local row = orm:session():query("SELECT title, slug FROM article WHERE id = ?", article.id)[1]
      assert.same({ title = "Blue Moon", slug = "blue-moon" }, row)
      db:delete(article)
      must(db[way](db))
      support.drain(orm)
      assert.same({ "insert red-moon", "update blue-moon", "update blue-moon", "update blue-moon",
        "delete blue-moon" }, told)
      assert.same({}, orm:session():query "SELECT id FROM article")
    end)
  end
end)
