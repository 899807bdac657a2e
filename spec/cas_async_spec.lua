-- SPDX-License-Identifier: MIT
-- Expectations of queued flushes: compared with what the cache knows when they are queued, and with the
-- row when they are applied; who comes too late is a dead letter with the row that won.

local regolith = require "regolith"
local support = require "support.init"

local field, must = regolith.field, support.must

local columns = { field.string "title" { length = 30, nullable = true }, field.int32 "n",
  field.json "tags" { nullable = true }, field.enum "state" { "new", "done" } }
local Note = regolith.entity("note", {
  columns[1], columns[2], columns[3], columns[4], field.string "secret" { sensitive = true },
  index = { by_n = { "n", cached = true } }, cache = { redis = true, process = true },
})
local Plain = regolith.entity("plain", { columns[1], columns[2], columns[3], columns[4] })
local Ver = regolith.entity("ver", { columns[2], columns[1], field.uint32 "v" { version = true }, cache = true })

describe("cas: queued", function()
  local world, orm, db

  setup(function()
    world = support.world()
    orm = world:open { Note, Plain, Ver }
  end)
  teardown(function() world:close() end)
  before_each(function() db = orm:session() end)
  after_each(function()
    db:close()
    must(orm:drop "all")
  end)

  local function stored(E, values)
    local e = must(db:new(E, values))
    must(db:flush())
    return e
  end

  it("are applied when the rows are as expected", function()
    local note, plain = stored(Note, { title = "a", tags = { 1 } }), stored(Plain, { n = 1 })
    note.n, plain.n = 5, 2
    db:expect(note, { "title", "tags", "state" })
    db:expect(plain, { n = 1 })
    must(db:flush_async())
    assert.equal(2, support.drain(orm))
    assert.same({}, must(orm:dead_letters()))
    assert.equal(5, must(db:query "SELECT n FROM note WHERE title = 'a'")[1].n)
    assert.equal(2, must(db:reload(plain)).n)
  end)

  it("are refused at once when the cache knows better", function()
    local note = stored(Note, { title = "a" })
    local other = orm:session()
    must(other:get(Note, note.id)).title = "b"
    must(other:flush_async())
    note.n = 7
    db:expect(note, { "title" })
    local ok, err = db:flush_async()
    assert.is_nil(ok)
    assert.same({ "CONFLICT", note, "b" }, { err.code, err.row, err.current.title })
    assert.same({ "title" }, err.differs)
    db:discard(note)
    note.n = 8
    db:expect(note, { title = "b" })
    must(db:flush_async())
    support.drain(orm)
    assert.same({}, must(orm:dead_letters()))
    assert.equal(8, must(orm:session():get(Note, note.id)).n)
    other:close()
  end)

  it("become dead letters with the row that won, and the caches show that row", function()
    local list = {}
    for i = 1, 6 do list[i] = stored(Note, { title = "t" .. i, n = 100 + i, secret = "s" }) end
    for i, note in ipairs(list) do
      note.n = 200 + i
      db:expect(note, i == 6 and { state = "new" } or { "title", "state" })
    end
    must(db:flush_async())
    assert.equal(203, must(orm:session():get(Note, list[3].id)).n)
    must(db:execute("UPDATE note SET state = 'done', n = 505 WHERE id = ?", list[3].id))
    support.drain(orm)
    local letters = must(orm:dead_letters())
    assert.equal(1, #letters)
    assert.matches("changed", letters[1].error)
    local letter = must(orm:dead_letter(letters[1].number))
    assert.equal("203", tostring(letter.values.n))
    assert.same({ "done", "505", "t3", "(hidden)" },
      { letter.current.state, tostring(letter.current.n), letter.current.title, letter.current.secret })
    for i, note in ipairs(list) do
      assert.equal(i == 3 and 505 or 200 + i, must(orm:session():get(Note, note.id)).n)
    end
    assert.equal(1, #must(orm:session():all_by(Note, "by_n", 505)))
    assert.same({}, must(orm:session():all_by(Note, "by_n", 203)))
    must(db:execute("UPDATE note SET state = 'new' WHERE id = ?", list[3].id))
    assert.equal(0, must(orm:retry(letters[1].number)))
    assert.equal(203, must(orm:session():get(Note, list[3].id)).n)
  end)

  it("tell what was met by versions, deletes and rows that are only compared", function()
    local ver, gone, seen = stored(Ver, { n = 1 }), stored(Plain, { n = 1 }), stored(Plain, { n = 1 })
    ver.n = 2
    db:expect(gone, { "n" })
    db:delete(gone)
    db:expect(seen, { "n" })
    must(db:flush_async())
    must(db:execute("UPDATE ver SET v = 9 WHERE id = ?", ver.id))
    must(db:execute("UPDATE plain SET n = 9"))
    support.drain(orm)
    local letters, kinds = must(orm:dead_letters()), {}
    for _, letter in ipairs(letters) do
      kinds[letter.entity .. letter.operation] = must(orm:dead_letter(letter.number))
    end
    assert.equal(3, #letters)
    assert.equal("9", tostring(kinds.plaindelete.current.n))
    assert.equal("9", tostring(kinds.plainupdate.current.n))
    local left = must(db:query("SELECT id FROM plain WHERE n = 9 AND id IN ?", { gone.id, seen.id }))
    assert.equal(2, #left)
  end)

  it("take what changes by the shorthand", function()
    local plain = stored(Plain, { n = 1, title = "x" })
    plain.n = 2
    must(db:flush_async { cas = "changes" })
    must(db:execute("UPDATE plain SET title = 'y' WHERE id = ?", plain.id))
    support.drain(orm)
    assert.same({}, must(orm:dead_letters()))
    plain.n = 3
    must(db:flush_async { cas = "changes" })
    must(db:execute("UPDATE plain SET n = 77 WHERE id = ?", plain.id))
    support.drain(orm)
    assert.equal("77", tostring(must(orm:dead_letter(must(orm:dead_letters())[1].number)).current.n))
  end)
end)
