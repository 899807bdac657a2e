-- SPDX-License-Identifier: MIT
-- Reads that go together: references of the members of one list, and operations that wait for a worker.

local native = require "regolith.native"
local regolith = require "regolith"
local support = require "support.init"

local C, ffi, err = native.C, native.ffi, native.err
local field, must = regolith.field, support.must

local Land = regolith.entity("land", { field.string "name" { length = 20 } })
--- Looked up by way of Redis, by several columns, and by a collation that takes e for E.
local Place = regolith.entity("place", {
  field.string "code" { length = 20, unique = true }, field.uint32 "a", field.decimal "b" { precision = 8, scale = 2 },
  field.string "loose" { length = 20, collation = "utf8mb4_general_ci" },
  unique = { pair = { "a", "b" }, loose = { "loose" } }, cache = { redis = true },
})
local City = regolith.entity("city", {
  field.string "name" { length = 20, unique = true }, field.ref "land" { Land }, field.ref "mayor" { "person" },
})
local Person = regolith.entity("person", { field.string "name" { length = 20 }, field.ref "home" { City } })

describe("reads together:", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { Land, City, Person, Place }
    local all = orm:session()
    for i = 1, 20 do
      local land = must(all:new(Land, { name = "l" .. i }))
      local city = must(all:new(City, { name = "c" .. i, land = land }))
      must(all:new(Person, { name = "p" .. i, home = city }))
      if i == 20 then must(all:new(Person, { name = "homeless" })) end
      must(all:new(Place, { code = "p" .. i, a = math.floor(i / 4), b = i % 4 + 0.25, loose = "W\195\182rd" .. i }))
    end
    must(all:flush())
    all:close()
  end)
  teardown(function() world:close() end)
  before_each(function() db = orm:session() end)
  after_each(function() db:close() end)

  describe("a reference", function()
    it("of one member of a list is loaded for all", function()
      local people = must(db:search(Person, "1 = 1 ORDER BY id"):all())
      local counts = support.count(orm, function()
        for i, person in ipairs(people) do
          assert.equal(i <= 20 and "c" .. i or nil, person.home and person.home.name)
        end
      end)
      assert.equal(1, counts.mysql)
      counts = support.count(orm, function()
        for i = 1, 20 do assert.equal("l" .. i, people[i].home.land.name) end
      end)
      assert.equal(1, counts.mysql)
    end)

    it("is loaded for lists by ids and by index as well", function()
      local first = must(db:all(Person))
      local ids = {}
      for i, person in ipairs(first) do ids[i] = person.id end
      db:clear()
      local some = must(db:get_many(Person, ids))
      local counts = support.count(orm, function() for i = 1, 20 do assert.truthy(some[i].home) end end)
      assert.equal(1, counts.mysql)
    end)

    it("of an entity by itself is loaded alone", function()
      local person = must(db:search(Person, "name = 'p7'"):one())
      local counts = support.count(orm, function() assert.equal("c7", person.home.name) end)
      assert.equal(1, counts.mysql)
      assert.matches("IN %(%?%)", (counts.texts[1]:gsub("=%?", " IN (?)")))
    end)

    it("that cannot be read of another member is not this one's fault", function()
      local people = must(db:search(Person, "1 = 1 ORDER BY id"):all())
      rawset(people[3], "home_id", "nonsense")
      rawset(people[4], "home_id", 999999999)
      assert.equal("c1", people[1].home.name)
      assert.is_nil(people[4].home)
      db:discard(people[3])
      db:discard(people[4])
    end)
  end)

  describe("operations", function()
    local POLLIN = 1
    ffi.cdef "typedef struct { int fd; short events, revents; } rgspec_pollfd;"

    --- Submits a statement that waits for a lock, then theirs, to the one worker of an engine; they all wait
    --- until the lock is given free.
    local function submit(engine, notifier, make, n)
      local ops, name = {}, world.name
      local busy = string.format("SELECT GET_LOCK('%s', 60), RELEASE_LOCK('%s')", name, name)
      must(world.sql:connection(function(holder)
        must(holder:query("SELECT GET_LOCK(?, 60)", name))
        ops[0] = ffi.gc(must(C.rg_op_query(engine, "default", busy, #busy, err)), C.rg_op_free)
        must(C.rg_op_submit(ops[0], notifier, 1000, 60000, err) == 0)
        for i = 1, n do
          ops[i] = ffi.gc(make(engine, i), C.rg_op_free)
          must(C.rg_op_submit(ops[i], notifier, i, 60000, err) == 0)
        end
        return holder:query("SELECT RELEASE_LOCK(?)", name)
      end))
      return ops
    end

    --- Runs them on one thread, whatever the time: how many statements that took.
    local function run(make, n, may_fail)
      local one = world:open({ Land, City, Person, Place }, { schema = false, workers = 1, max_workers = 1 })
      local engine = one._engine
      local notifier = ffi.gc(C.rg_notifier_new(engine, 0, err), C.rg_notifier_free)
      local fd, tags, done = ffi.new "rgspec_pollfd[1]", ffi.new "uint32_t[64]", 0
      must(one:connect())
      local before = one:counter "regolith_mysql_queries_total"
      local ops = submit(engine, notifier, make, n)
      fd[0].fd, fd[0].events = C.rg_notifier_fd(notifier), POLLIN
      while done < n + 1 do
        ffi.C.poll(fd, 1, 1000)
        repeat
          local some = C.rg_notifier_drain(notifier, tags, 64)
          done = done + some
        until some == 0
      end
      for i = 0, may_fail and 0 or n do assert.equal(0, C.rg_op_code(ops[i])) end
      return one, ops, one:counter "regolith_mysql_queries_total" - before - 1, notifier
    end

    local function finish(one, ops, notifier)
      for _, op in pairs(ops) do C.rg_op_free(ffi.gc(op, nil)) end
      C.rg_notifier_free(ffi.gc(notifier, nil))
      world:shut(one)
    end

    it("by id that wait together are one statement, each with its rows", function()
      local list = must(db:all(Person))
      local T = orm._types[Person]
      local one, ops, queries, notifier = run(function(engine, i)
        local op = C.rg_op_get(engine, T.number, 0, err)
        C.rg_op_add_id(op, list[i].id, err)
        C.rg_op_add_id(op, list[1].id, err)
        C.rg_op_add_id(op, 999999999, err)
        return op
      end, 20)
      assert.equal(1, queries)
      local session, view = ffi.gc(C.rg_session_new(one._engine, err), C.rg_session_free), ffi.new "rg_view"
      for i = 1, 20 do
        assert.equal(3, C.rg_op_rows(ops[i]))
        for k, name in ipairs { list[i].name, list[1].name } do
          assert.equal(C.RG_GET_HIT, C.rg_op_row(ops[i], k - 1, session, view))
          assert.equal(name, one._types[Person].decode(view.data).name)
        end
        assert.equal(C.RG_GET_ABSENT, C.rg_op_row(ops[i], 2, session, view))
      end
      C.rg_session_free(ffi.gc(session, nil))
      finish(one, ops, notifier)
    end)

    --- A lookup by an index of these values, in the order of its columns.
    local function lookup(engine, T, index, ...)
      C.rg_builder_reset(T.builder)
      for i, column in ipairs(T.entity.by_index[index].columns) do
        local v = select(i, ...)
        local text = type(v) == "string"
        must((text and C.rg_builder_string(T.builder, column.number, v, #v, err)
          or C.rg_builder_number(T.builder, column.number, v, err)) >= 0)
      end
      for number, x in ipairs(T.entity.indexes) do
        if x.name == index then return must(C.rg_op_lookup(engine, T.number, number - 1, T.builder, err)) end
      end
    end

    --- Which field of the one row there is.
    local function of_row(one, op, E, name)
      local session, view = ffi.gc(C.rg_session_new(one._engine, err), C.rg_session_free), ffi.new "rg_view"
      local v
      if C.rg_op_rows(op) > 0 then
        assert.equal(1, C.rg_op_rows(op))
        assert.equal(C.RG_GET_HIT, C.rg_op_row(op, 0, session, view))
        v = one._types[E].decode(view.data)[name]
      end
      C.rg_session_free(ffi.gc(session, nil))
      return v
    end

    it("that look the same thing up are one", function()
      local T = orm._types[City]
      local one, ops, queries, notifier = run(function(engine, i)
        return lookup(engine, T, "name", i % 2 == 0 and "c5" or "c6")
      end, 10)
      assert.equal(1, queries)
      for i = 1, 10 do assert.equal(i % 2 == 0 and "c5" or "c6", of_row(one, ops[i], City, "name")) end
      finish(one, ops, notifier)
    end)

    it("by values of a unique index are one statement, each with its row", function()
      local T = orm._types[City]
      local one, ops, queries, notifier = run(function(engine, i)
        return lookup(engine, T, "name", "c" .. i)
      end, 25)
      assert.is_true(queries <= 2, queries) -- and the rows of those that Redis has the ids of
      for i = 1, 25 do assert.equal(i <= 20 and "c" .. i or nil, of_row(one, ops[i], City, "name")) end
      finish(one, ops, notifier)
    end)

    it("by several columns, by way of caches and by other collations find what each alone finds", function()
      local T = orm._types[Place]
      local ways = {
        pair = function(i) return math.floor(i / 4), string.format("%d.25", i % 4) end,
        code = function(i) return "p" .. i end,
        loose = function(i) return (i % 2 == 0 and "wORD" or i % 3 == 0 and "w\195\150rd" or "W\195\182RD") .. i end,
      }
      for index, values in pairs(ways) do
        for round = 1, 2 do -- the second one is answered by Redis where it may be
          local one, ops, queries, notifier = run(function(engine, i)
            return lookup(engine, T, index, values(i))
          end, 24)
          for i = 1, 24 do
            local label = string.format("%s %d, round %d", index, i, round)
            assert.equal(i <= 20 and "p" .. i or nil, of_row(one, ops[i], Place, "code"), label)
          end
          -- what the bytes do not tell is asked for alone
          if index ~= "loose" then assert.is_true(queries <= 2, index .. ": " .. queries) end
          finish(one, ops, notifier)
        end
      end
    end)

    it("that search the same are one: rows, ids and counts", function()
      local T = orm._types[City]
      for mode = 0, 2 do
        local one, ops, queries, notifier = run(function(engine, i)
          local where = "name LIKE ? AND id > ?"
          local limit = i % 5 == 0 and 0 or 7 * (2 - mode)
          local op = must(C.rg_op_search(engine, T.number, where, #where, mode, 0, limit, err))
          local like = i % 2 == 0 and "c1%" or "c2%"
          C.rg_op_param_string(op, like, #like, err)
          C.rg_op_param_number(op, 0, err)
          return op
        end, 20)
        assert.equal(mode == 2 and 2 or 4, queries) -- those that differ
        for i = 1, 20 do
          local whole = i % 2 == 0 and 11 or 2
          local limit = mode < 2 and i % 5 > 0 and 7 * (2 - mode) or 100
          if mode == 2 then
            assert.equal(whole, C.rg_op_number(ops[i]))
          else
            assert.equal(math.min(whole, limit), C.rg_op_rows(ops[i]))
            if mode == 1 then assert.is_true(C.rg_op_id(ops[i], 0) > 0) end
          end
        end
        finish(one, ops, notifier)
      end
    end)

    it("that fail together fail each for itself", function()
      local T = orm._types[City]
      local one, ops, _, notifier = run(function(engine, i)
        local where = i % 2 == 0 and "nothing = ?" or "name = ?"
        local op = must(C.rg_op_search(engine, T.number, where, #where, 0, 0, 0, err))
        C.rg_op_param_string(op, "c1", 2, err)
        return op
      end, 10, true)
      for i = 1, 10 do
        assert.equal(i % 2 == 0 and C.RG_ESCHEMA or 0, C.rg_op_code(ops[i]))
        if i % 2 == 1 then assert.equal("c1", of_row(one, ops[i], City, "name")) end
      end
      finish(one, ops, notifier)
    end)
  end)
end)
