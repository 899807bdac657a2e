-- SPDX-License-Identifier: MIT
-- Entities spread over three databases: where rows go, who is asked, and what is made of the answers.

local faults = require "support.faults"
local regolith = require "regolith"
local support = require "support.init"

local field, must = regolith.field, support.must
local SHARD = 2 ^ 43

local Region = regolith.entity("region", { field.string "name" { required = true } })
local Team = regolith.entity("team", {
  field.string "name" { required = true },
  field.ref "region" { Region },
  shards = { "s0", "s1", "s2", inverse = { "region" } },
  index = { by_region = { "region" }, by_name = { "name" } },
})
local User = regolith.entity("user", {
  field.string "email" { length = 190, required = true },
  field.ref "team" { Team, required = true, foreign_key = true },
  field.uint32 "visits",
  field.decimal "credit" { precision = 12, scale = 2 },
  field.string "nick" { length = 40, nullable = true },
  field.enum "state" { "new", "active", "banned" },
  field.int64 "score",
  shards = { "s0", "s1", "s2", by = "team" },
  cache = { process = true, redis = true },
  unique = { email = { "team", "email" } },
  index = { by_team = { "team", cached = true }, by_state = { "state" } },
})
local Mail = regolith.entity("mail", {
  field.string "address" { length = 190, required = true, unique = true },
  field.uint32 "n",
  shards = { "s0", "s1", "s2", by = "address" },
})
local Event = regolith.entity("event", {
  field.uint32 "n", ids = "application", shards = { "s0", "s1", "s2", by = "id" },
})

describe("shards", function()
  local worlds, world, orm, db

  local function pools()
    return { default = world.mysql_url(world.name), s0 = world.mysql_url(worlds[1].name),
      s1 = world.mysql_url(worlds[2].name), s2 = world.mysql_url(worlds[3].name) }
  end

  setup(function()
    worlds = { support.world(), support.world(), support.world() }
    world = support.world()
    orm = world:open({ Region, Team, User, Mail, Event }, { mysql = pools() })
  end)
  teardown(function()
    world:close()
    for _, w in ipairs(worlds) do w:close() end
  end)
  before_each(function() db = orm:session() end)
  after_each(function()
    if rawget(db, "_c") then db:close() end
    local admin = orm:session()
    for _, pool in ipairs { "s0", "s1", "s2" } do
      for _, name in ipairs { "user", "team", "mail", "event" } do
        must(admin:execute { "DELETE FROM `" .. name .. "`", pool = pool })
      end
    end
    admin:close()
    must(orm:invalidate(User))
  end)

  --- Statements by pool that fn causes, `rows` those that read rows of an entity.
  local function asked(fn)
    local counts = {}
    orm:log(function(event)
      if event.op == "SELECT" or event.op == "READ" then counts[event.pool] = (counts[event.pool] or 0) + 1 end
    end, { mysql = true })
    local ok, fault = pcall(fn)
    orm:log(nil)
    must(ok, fault)
    return counts
  end

  local function count(pool, name)
    return must(db:query({ "SELECT COUNT(*) AS n FROM `" .. name .. "`", pool = pool }))[1].n
  end

  --- A team on each shard, with users of these visits.
  local function fill(visits)
    local teams = {}
    for k = 0, 2 do teams[k] = must(db:new(Team, { name = "t" .. k }, { shard = k })) end
    for i, n in ipairs(visits or {}) do
      must(db:new(User, { email = "u" .. i, team = teams[i % 3], visits = n, credit = tostring(n - 5) .. ".50",
        nick = i % 4 > 0 and "n" .. n or nil, score = n - 3 }))
    end
    must(db:flush())
    db:close()
    db = orm:session()
    return teams
  end

  it("make their tables on every shard, and know it", function()
    assert.same({}, must(orm:schema_diff()))
    local seen = {}
    for _, pool in ipairs { "s1", "s2" } do
      must(db:connection(pool, function(c) return c:execute "DROP TABLE event" end))
    end
    for _, change in ipairs(must(orm:schema_diff { progress = function(pool, i, n)
      seen[#seen + 1] = pool .. i .. "/" .. n
    end })) do
      assert.equal("event", change.table)
    end
    assert.same({ "default1/4", "s02/4", "s13/4", "s24/4" }, seen)
    local steps = {}
    must(orm:schema_apply { progress = function(change, fault, i, n)
      assert.is_nil(fault)
      steps[#steps + 1] = change.pool .. " " .. i .. "/" .. n
    end })
    assert.same({ "s1 1/2", "s2 2/2" }, steps)
    assert.same({}, must(orm:schema_diff()))
  end)

  it("put the shard's number into ids, and rows of a parent beside it", function()
    local teams = fill { 1, 2, 3, 4, 5, 6 }
    for k = 0, 2 do
      assert.equal(k, math.floor(teams[k].id / SHARD))
      assert.equal(1, count("s" .. k, "team"))
      assert.equal(2, count("s" .. k, "user"))
    end
    for _, user in ipairs(must(db:search(User, "1 = 1"):all())) do
      assert.equal(math.floor(user.team_id / SHARD), math.floor(user.id / SHARD))
    end
    assert.equal("s2", select(2, orm:shard_of(Team, teams[2].id)))
    local spread = {}
    for _ = 1, 30 do
      local k = math.floor(must(db:new(Team, { name = "any" })).id / SHARD)
      spread[k] = (spread[k] or 0) + 1
    end
    assert.same({ [0] = 10, [1] = 10, [2] = 10 }, spread)
  end)

  it("ask the one shard of an id, and each shard once for many", function()
    local teams = fill { 1, 2, 3 }
    assert.same({ s1 = 1 }, asked(function() assert.equal("t1", must(db:get(Team, teams[1].id)).name) end))
    db:clear()
    local ids = { teams[2].id, teams[0].id, 5 * SHARD, teams[1].id, teams[2].id, 3 * SHARD + 1 }
    local list
    assert.same({ s0 = 1, s1 = 1, s2 = 1 }, asked(function() list = must(db:get_many(Team, ids)) end))
    assert.same({ "t2", "t0", "t1", "t2" }, { list[1].name, list[2].name, list[4].name, list[5].name })
    assert.is_nil(list[3])
    assert.equal(6, list.n)
    assert.same({}, asked(function() assert.is_nil(db:get(Team, 9 * SHARD)) end))
    assert.equal("t0", must(db:reload(must(db:get(Team, teams[0].id)))).name)
  end)

  it("answer lookups from the shard that the key tells, else from all", function()
    local teams = fill { 1, 2, 3, 4, 5, 6 }
    local user
    assert.same({ s1 = 1 }, asked(function()
      user = must(db:by(User, "email", { team = teams[1].id, email = "u1" }))
    end))
    assert.equal("u1", user.email)
    local list, total
    assert.same({ s0 = 1, s1 = 1, s2 = 1 }, asked(function() list, total = db:all_by(User, "by_state", "new") end))
    assert.equal(6, total)
    local last = 0
    for _, one in ipairs(list) do
      assert.is_true(one.id > last)
      last = one.id
    end
    list, total = db:all_by(User, "by_state", "new", { page = 2, size = 4 })
    assert.same({ 2, 6 }, { #list, total })
    assert.same({ s2 = 1 }, asked(function() assert.equal(2, #must(db:all_by(User, "by_team", teams[2]))) end))
    faults.await("a cached list", function()
      return next(asked(function() assert.equal(2, #must(db:all_by(User, "by_team", teams[2]))) end)) == nil
    end)
  end)

  it("hash a key: one shard is asked, equal values meet", function()
    for i = 1, 30 do must(db:new(Mail, { address = "a" .. i .. "@example.org", n = i })) end
    must(db:flush())
    local all = 0
    for k = 0, 2 do
      local n = count("s" .. k, "mail")
      assert.is_true(n > 0)
      all = all + n
    end
    assert.equal(30, all)
    db:clear()
    local counts = asked(function() assert.equal(7, must(db:by(Mail, "address", "a7@example.org")).n) end)
    local shards = 0
    for _ in pairs(counts) do shards = shards + 1 end
    assert.equal(1, shards)
    must(db:new(Mail, { address = "a7@example.org" }))
    local ok, fault = db:flush()
    assert.is_nil(ok)
    assert.equal("DUPLICATE_KEY", fault.code)
  end)

  it("hash ids of the application's own", function()
    for id = 1, 20 do must(db:new(Event, { id = id * 7, n = id })) end
    must(db:flush())
    db:clear()
    for id = 1, 20 do assert.equal(id, must(db:get(Event, id * 7)).n) end
    assert.equal(20, count("s0", "event") + count("s1", "event") + count("s2", "event"))
    assert.is_true(count("s0", "event") < 20)
  end)

  describe("search", function()
    local function emails(list)
      local names = {}
      for i, user in ipairs(list) do names[i] = user.email end
      return table.concat(names, " ")
    end

    it("is sent where its condition says, else everywhere", function()
      local teams = fill { 1, 2, 3, 4, 5, 6 }
      local one = { s1 = 1 }
      local function where(text, ...)
        local params, n = { ... }, select("#", ...)
        return asked(function() must(db:search(User, text, unpack(params, 1, n)):all()) end)
      end
      local id = teams[1].id
      assert.same(one, where("team_id = ?", id))
      assert.same(one, where("team_id = ? AND visits > ?", teams[1], 0))
      assert.same(one, where("visits > ? and `team_id` = ? order by visits desc limit 1", 0, id))
      assert.same(one, where("visits BETWEEN ? AND ? AND team_id IN (?)", 0, 9, id))
      assert.same(one, where("team_id IN ? AND (visits = 1 OR visits = 2)", { id }))
      assert.same(one, where("id = ?", id + 1))
      assert.same(one, asked(function() must(db:search(User, "visits > 0"):at(teams[1]):all()) end))
      assert.same({ s0 = 1, s1 = 1 }, where("team_id IN ?", { id, teams[0].id }))
      local all = { s0 = 1, s1 = 1, s2 = 1 }
      for _, text in ipairs { "team_id = ? OR visits = 1", "NOT team_id = ?", "team_id + 0 = ?", "(team_id = ?) = 0",
        "team_id = ? = 0", "visits BETWEEN 0 AND team_id = ?", "team_id > ?", "IF(1, team_id, 0) = ?",
        "email = 'x AND team_id = 1' OR team_id = ?", "CASE WHEN team_id = ? THEN 1 END",
        "team_id = ? /* x */ || visits" } do
        assert.same(all, where(text, id), text)
      end
      assert.same(all, where("team_id = ?", tostring(id) .. ".0")) -- a text that the server takes for the number
    end)

    it("merges in order, with limit, offset, pages and counts", function()
      fill { 5, 3, 9, 1, 7, 3, 8, 2, 6, 4 }
      local found = must(db:search(User, "1 = 1 ORDER BY visits, id"):all())
      assert.equal("u4 u8", emails { found[1], found[2] })
      assert.equal("u4 u8 u2 u6 u10 u1 u9 u5 u7 u3", emails(found):gsub("u6 u2", "u2 u6"))
      assert.equal("u3 u7 u5", emails(must(db:search(User, "1 = 1 ORDER BY visits DESC"):limit(3):all())))
      assert.equal("u5 u9", emails(must(db:search(User, "1 = 1 ORDER BY visits DESC"):limit(2, 2):all())))
      assert.equal("u3", must(db:search(User, "1 = 1 ORDER BY visits DESC"):one()).email)
      local list, total = db:search(User, "visits < ? ORDER BY visits DESC", 9):page_with_count(2, 4)
      assert.equal(9, total)
      assert.equal(4, #list)
      assert.equal(10, must(db:search(User, "1 = 1"):count()))
      assert.equal(10, #must(db:search(User, "1 = 1"):ids()))
      local ids = must(db:search(User, "1 = 1 ORDER BY visits DESC"):limit(2):ids())
      assert.equal("u3 u7", emails { must(db:get(User, ids[1])), must(db:get(User, ids[2])) })
      assert.equal(10, #must(db:all(User)))
      assert.equal(3, #must(db:search(User, "1 = 1"):limit(3):all()))
    end)

    it("orders as the server does: NULLs, decimals, negative numbers, text, ties", function()
      fill { 5, 3, 9, 1, 7, 3, 8, 2, 6, 40, 100, 11 }
      for _, order in ipairs { "credit", "credit DESC", "nick, id", "nick DESC, id", "score DESC, id", "email DESC",
        "state, email", "team_id, visits, id", "id DESC", "visits DESC, credit, id ASC" } do
        local merged = must(db:search(User, "1 = 1 ORDER BY " .. order):all())
        local tied = order:find "id" and order or order .. ", id"
        local union = {}
        for k = 1, 3 do union[k] = "SELECT * FROM `" .. worlds[k].name .. "`.`user`" end
        local rows = must(db:query(string.format("SELECT email FROM (%s) u ORDER BY %s",
          table.concat(union, " UNION ALL "), tied)))
        local wanted = {}
        for i, row in ipairs(rows) do wanted[i] = row.email end
        assert.equal(table.concat(wanted, " "), emails(merged), order)
      end
    end)

    it("asks the shards side by side", function()
      fill()
      local started = faults.now()
      assert.equal(3, must(db:search(Team, "SLEEP(1) = 0"):count()))
      assert.is_true(faults.now() - started < 2.9) -- one after the other: 3
    end)

    it("refuses an order that it cannot merge", function()
      local function fault(text) return select(2, pcall(db.search, db, User, text)) end
      assert.matches("orders by columns alone", fault "1 = 1 ORDER BY visits + 1")
      assert.matches("orders by columns alone", fault "1 = 1 ORDER BY RAND()")
      assert.matches("takes its limit from :limit", fault "1 = 1 LIMIT 5")
      local ok = pcall(db.search, db, User, "team_id = 5 ORDER BY visits + 1")
      assert.is_false(ok) -- a literal is not looked at
      assert.is_true((pcall(db.search, db, User, "team_id = ? ORDER BY visits + 1", 5)))
    end)
  end)

  describe("inverse", function()
    it("tells the shards of a parent's children, and no other is asked", function()
      local north = must(db:new(Region, { name = "north" }))
      local south = must(db:new(Region, { name = "south" }))
      must(db:new(Team, { name = "a", region = north }, { shard = 2 }))
      must(db:new(Team, { name = "b", region = north }, { shard = 2 }))
      must(db:new(Team, { name = "c", region = south }, { shard = 0 }))
      local moving = must(db:new(Team, { name = "d", region = south }, { shard = 1 }))
      must(db:flush())
      db:close()
      db = orm:session()
      local counts = asked(function() assert.equal(2, #must(db:all_by(Team, "by_region", north.id))) end)
      assert.same({ default = 1, s2 = 1 }, counts)
      counts = asked(function() assert.equal(2, #must(db:search(Team, "region_id = ?", south.id):all())) end)
      assert.same({ default = 1, s0 = 1, s1 = 1 }, counts)
      -- a child that moves to another parent is found there; a shard too many costs a question
      must(db:get(Team, moving.id)).region = north.id
      must(db:flush())
      assert.equal(3, #must(db:all_by(Team, "by_region", north.id)))
      assert.equal(1, #must(db:all_by(Team, "by_region", south.id)))
      assert.same({}, must(db:all_by(Team, "by_region", 4711)))
    end)

    it("is written once, and stays when the flush fails", function()
      local region = must(db:new(Region, { name = "east" }))
      must(db:flush())
      local function inserts(fn)
        local n = 0
        orm:log(function(event)
          if event.text:find("_regolith_inverses", 1, true) then n = n + 1 end
        end, { mysql = true })
        fn()
        orm:log(nil)
        return n
      end
      local team = must(db:new(Team, { name = "x", region = region }, { shard = 1 }))
      assert.equal(1, inserts(function() must(db:flush()) end))
      must(db:new(Team, { name = "y", region = region }, { shard = 1 }))
      assert.equal(0, inserts(function() must(db:flush()) end))
      must(db:new(Team, { id = team.id, name = "twice", region = region }))
      must(db:new(Team, { name = "z", region = region }, { shard = 2 }))
      assert.is_nil((db:flush()))
      db:discard()
      assert.equal(2, #must(db:all_by(Team, "by_region", region.id)))
    end)

    it("is made for rows that were there before", function()
      local region = must(db:new(Region, { name = "west" }))
      must(db:new(Team, { name = "old", region = region }, { shard = 1 }))
      must(db:flush())
      must(db:execute "DELETE FROM `_regolith_inverses`")
      assert.equal(0, #must(db:all_by(Team, "by_region", region.id)))
      local steps = 0
      assert.is_true(must(orm:rebuild_inverses(Team, function() steps = steps + 1 end)) >= 1)
      assert.equal(3, steps)
      assert.equal(1, #must(db:all_by(Team, "by_region", region.id)))
    end)
  end)

  it("flush in one transaction a shard, and refuse rows that would have to move", function()
    local teams = fill { 1, 2, 3 }
    local user = must(db:search(User, "email = 'u1'"):one())
    user.team = teams[2]
    local ok, fault = db:flush()
    assert.is_nil(ok)
    assert.equal("INVALID", fault.code)
    assert.equal("team", fault.field)
    assert.matches("a row does not move", fault.message)
    db:discard()
    must(db:new(Team, { id = 3 * SHARD + 1, name = "nowhere" }))
    ok, fault = db:flush()
    assert.is_nil(ok)
    assert.matches("of no shard", fault.message)
    db:discard()
    assert.matches("needs a 'team' that tells its shard", select(2, pcall(db.new, db, User, { email = "x" })))
    assert.matches("has shards 0 to 2", select(2, pcall(db.new, db, Team, { name = "x" }, { shard = 3 })))
    for _, one in ipairs(must(db:search(User, "1 = 1"):all())) do one.visits = one.visits + 10 end
    local begins = support.count(orm, function() must(db:flush()) end)
    local pairs_of = 0
    for _, text in ipairs(begins.texts) do pairs_of = pairs_of + (text == "COMMIT" and 1 or 0) end
    assert.equal(3, pairs_of)
    for _, one in ipairs(must(db:search(User, "1 = 1"):all())) do db:delete(one) end
    must(db:flush())
    assert.equal(0, must(db:search(User, "1 = 1"):count()))
  end)

  it("are read in a transaction on one of them as it sees them", function()
    local teams = fill { 1, 2, 3 }
    must(db:transaction({ pool = "s1" }, function()
      must(db:get(Team, teams[1].id)).name = "inside"
      must(db:flush())
      assert.equal("inside", must(db:search(Team, "1 = 1 ORDER BY name"):all())[1].name)
      assert.equal(3, must(db:search(Team, "1 = 1"):count()))
      local other = orm:session()
      assert.equal("t1", must(other:get(Team, teams[1].id)).name)
      other:close()
      return true
    end))
    db:clear()
    assert.equal("inside", must(db:get(Team, teams[1].id)).name)
  end)

  it("are what they were after a rollback on their shard, and as they are on others", function()
    local teams = fill { 1, 2, 3 }
    local mine, theirs = must(db:get(Team, teams[1].id)), must(db:get(Team, teams[2].id))
    local gone = must(db:new(Team, { name = "gone" }, { shard = 1 }))
    local over = must(db:new(Team, { name = "over" }, { shard = 2 }))
    must(db:flush())
    local new = must(db:new(Team, { name = "new" }, { shard = 1 }))
    for round = 1, 2 do
      db:transaction({ pool = "s1" }, function()
        mine.name, theirs.name = "mine " .. round, "theirs " .. round
        db:delete(gone)
        if round == 1 then db:delete(over) end
        must(db:flush())
        assert.is_false(db:is_new(new))
        mine.name = "never flushed"
        return nil, "no"
      end)
      assert.equal("t1", mine.name)
      assert.is_nil((db:dirty(mine)))
      assert.is_true(db:is_new(new))
      assert.equal(gone, (db:get(Team, gone.id)))
      assert.equal(mine, (db:get(Team, mine.id)))
      assert.equal("theirs " .. round, theirs.name)
      assert.equal(theirs, (db:get(Team, theirs.id)))
      assert.is_nil((db:dirty(theirs)))
      assert.is_nil((db:get(Team, over.id)))
    end
    db:transaction({ pool = "s1" }, function()
      mine.name = "never committed"
      must(db:flush())
      db:clear()
      assert.equal("never committed", must(db:get_many(Team, { theirs.id, mine.id }))[2].name)
      return nil, "no"
    end)
    mine, theirs = must(db:get(Team, mine.id)), must(db:get(Team, theirs.id))
    assert.equal("t1", mine.name)
    new = must(db:new(Team, { name = "new" }, { shard = 1 }))
    mine.name, theirs.name = "mine at last", "theirs at last"
    must(db:flush())
    db:clear()
    assert.equal("mine at last", must(db:get(Team, mine.id)).name)
    assert.equal("theirs at last", must(db:get(Team, theirs.id)).name)
    assert.equal("new", must(db:get(Team, new.id)).name)
    assert.equal("gone", must(db:get(Team, gone.id)).name)
  end)

  it("compare and set, count up and upsert where the row is", function()
    local teams = fill { 1, 2, 3, 4, 5, 6 }
    local users = must(db:search(User, "1 = 1 ORDER BY visits"):all())
    local jobs = {}
    for i, user in ipairs(users) do
      jobs[i] = { user, { visits = user.visits + 10 }, cas = { visits = i % 2 == 0 and user.visits or 99 } }
    end
    for i, answer in ipairs(must(db:update_all(jobs))) do
      assert.equal(i % 2 == 0 and "applied" or "conflict", answer.outcome)
    end
    assert.is_true(must(db:update(users[1], { visits = regolith.increment(5) })).applied)
    assert.equal(6, must(db:reload(users[1])).visits)
    assert.is_true(must(db:delete(users[6], { cas = { "visits" } })).applied)
    assert.equal(5, must(db:search(User, "1 = 1"):count()))
    local answer, fault = db:update(users[2], { team = teams[0] }, { cas = "changes" })
    assert.is_nil(answer)
    assert.equal("INVALID", fault.code)
    local made = must(db:upsert(User, { team = teams[1].id, email = "new@example.org", visits = 1 })).entity
    assert.equal(1, math.floor(made.id / SHARD))
    assert.equal(made, must(db:upsert(User, { team = teams[1].id, email = "new@example.org", visits = 2 })).entity)
    assert.equal(6, must(db:search(User, "1 = 1"):count()))
    must(db:read_modify_write(made, function(user) return { visits = user.visits + 1 } end))
    assert.equal(3, must(db:reload(made)).visits)
  end)

  it("are not told of by errors and dead letters, which name entities", function()
    local teams = fill()
    must(db:execute({ "INSERT INTO `user` (id, email, team_id, visits, credit, state, score) "
      .. "VALUES (?, 'taken@example.org', ?, 1, 0, 'new', 0)", pool = "s1" }, SHARD + 77, teams[1].id))
    local user = must(db:new(User, { email = "taken@example.org", team = teams[1].id, nick = ("x"):rep(41) }))
    local _, fault = db:flush_async()
    assert.same({ "user", "nick" }, { fault.entity, fault.field })
    assert.is_nil(tostring(fault):find("@", 1, true), tostring(fault))
    user.nick = "early"
    must(db:flush_async())
    local redis, told = faults.redis(), nil
    support.drain(orm, { queue = "s1", on_dead_letter = function(letter) told = letter end })
    local letters = must(orm:dead_letters "s1")
    local letter = must(orm:dead_letter(letters[1].number, "s1"))
    assert.same({ "user", "user", "user" }, { told.entity, letters[1].entity, letter.entity })
    local entry
    faults.await("its announcement", function()
      must(orm:relay "s1")
      entry = must(redis:call("XREVRANGE", orm:stream_key(orm:dead_letter_stream "s1"), "+", "-"))[1]
      return entry
    end)
    local body = regolith.json_decode(entry[2][4])
    assert.same({ "user", user.id }, { body.entity, body.entity_id })
    for _, text in ipairs { told.error, letters[1].error, letter.error, body.error } do
      assert.is_nil(text:find("user@", 1, true), text)
    end

    _, fault = orm:edit(letter.number, { values = { visits = -1 } }, "s1")
    assert.same({ "INVALID", "visits" }, { fault.code, fault.field })
    must(orm:edit(letter.number, { values = { email = "free@example.org" } }, "s1"))
    assert.equal(0, must(orm:retry("all", "s1")))
    assert.equal("free@example.org", must(db:reload(user)).email)
    assert.equal(2, count("s1", "user"))
    redis:close()
  end)

  it("keep caches apart, and queue to the queue of each shard", function()
    local teams = fill()
    local users = {}
    for k = 0, 2 do
      users[k] = must(db:new(User, { email = "same@example.org", team = teams[k].id, visits = k }))
    end
    must(db:flush_async())
    for k = 0, 2 do assert.equal(0, count("s" .. k, "user")) end
    local other = orm:session()
    support.as_redis_answers(orm, function()
      other:clear()
      for k = 0, 2 do
        assert.equal(k, must(other:get(User, users[k].id)).visits)
        assert.equal(users[k].id, must(other:by(User, "email", { teams[k].id, "same@example.org" })).id)
      end
    end)
    other:close()
    local consumer = must(orm:consumer { queue = "all" })
    local applied = 0
    faults.await("three rows", function()
      applied = applied + must(consumer:step(0.05))
      return applied >= 3
    end)
    assert.equal(0, must(consumer:step(0.05)))
    assert.equal(3, applied)
    assert.equal(3, consumer:stats().applied)
    consumer:close()
    for k = 0, 2 do assert.equal(1, count("s" .. k, "user")) end
    must(orm:drained(5000, "all"))
    other = orm:session()
    support.as_redis_answers(orm, function()
      other:clear()
      assert.same({}, asked(function()
        for k = 0, 2 do assert.equal(k, must(other:get(User, users[k].id)).visits) end
      end))
    end)
    other:close()
    local audit = must(orm:audit { entity = User, all = true })
    assert.same({}, audit.mismatches)
    assert.is_true(audit.compared >= 3)
    assert.is_true(must(orm:invalidate(User, { users[1].id })) > 0)
    assert.is_true(must(orm:invalidate(User)) > 0)
  end)

  it("keep what was there before: it is shard 0", function()
    local Plain = regolith.entity("thing", { field.uint32 "n" })
    local Spread = regolith.entity("thing", { field.uint32 "n", shards = { "s0", "s1" } })
    local small = world:open({ Plain }, { mysql = { default = pools().s0 } })
    local session = small:session()
    local old = must(session:new(Plain, { n = 1 }))
    must(session:flush())
    session:close()
    world:shut(small)
    local grown = world:open({ Spread }, { mysql = pools() })
    session = grown:session()
    assert.equal(1, must(session:get(Spread, old.id)).n)
    local new = must(session:new(Spread, { n = 2 }, { shard = 0 }))
    assert.is_true(new.id > old.id and new.id < SHARD)
    must(session:new(Spread, { n = 3 }, { shard = 1 }))
    must(session:flush())
    assert.equal(3, must(session:search(Spread, "1 = 1"):count()))
    session:close()
    world:shut(grown)
  end)

  it("fail as a whole when one shard is away, naming its pool", function()
    local broken = pools()
    broken.s1 = "mysql+unix:///nowhere/at/all.sock?user=root&db=x"
    local partly = must(regolith.open { mysql = broken, entities = { Region, Team, Mail }, lazy = true })
    local session = partly:session()
    local list, fault = session:search(Team, "1 = 1"):all()
    assert.is_nil(list)
    assert.equal("UNAVAILABLE", fault.code)
    assert.matches("pool 's1'", fault.message)
    assert.is_nil((session:get(Team, 5))) -- shard 0 answers
    assert.is_nil(select(2, session:get(Team, 5)))
    session:close()
    partly:close()
  end)

  it("are checked when they are defined", function()
    local function faults_of(args)
      local Bad = regolith.entity("bad", args)
      local _, fault = regolith.open { mysql = pools(), entities = { Bad, Region, Team } }
      return tostring(fault)
    end
    local name = field.string "name"
    assert.matches("shards: names no pools", faults_of { name, shards = {} })
    assert.matches("pool 's0' is there twice", faults_of { name, shards = { "s0", "s0" } })
    assert.matches('there is no MySQL pool "s9"', faults_of { name, shards = { "s9" } })
    assert.matches("there is no field 'nam' %(did you mean 'name'%?%)",
      faults_of { name, shards = { "s0", by = "nam" } })
    assert.matches("unknown option 'bi'", faults_of { name, shards = { "s0", bi = "name" } })
    assert.matches("a json tells no shard", faults_of { field.json "j", shards = { "s0", by = "j" } })
    assert.matches("equal values of different bytes",
      faults_of { field.string "c" { collation = "utf8mb4_general_ci" }, shards = { "s0", by = "c" } })
    assert.matches("unique within a shard only", faults_of { field.string "u" { unique = true }, shards = { "s0" } })
    assert.matches("do not tell the shard", faults_of { name, ids = "database", shards = { "s0" } })
    assert.matches('by = "id" is for ids', faults_of { name, shards = { "s0", by = "id" } })
    assert.matches("'name' is no reference", faults_of { name, shards = { "s0", inverse = { "name" } } })
    assert.matches("names its pools there", faults_of { name, mysql = "s0", shards = { "s0" } })
    local same = pools()
    same.s1 = same.s0
    local _, fault = regolith.open { mysql = same, entities = { Mail } }
    assert.matches("mail: shards: the pools 's0' and 's1' are one database", tostring(fault))
    assert.matches("cannot reach from pool",
      faults_of { field.ref "team" { Team, foreign_key = true }, mysql = "s1" })
  end)
end)
