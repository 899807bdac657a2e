-- SPDX-License-Identifier: MIT
-- One of several processes that write on condition, each on a node of its own of one cluster, what all write.
--   node.lua SEED TIMES
-- Who loses tries again; so does who is told that the cluster took somebody else's transaction instead.
-- Says in a line "done ACKNOWLEDGED LOST".

require "support.programs.follow"
local regolith = require "regolith"
local shared = require "support.programs.shared"

local Vote = shared.Vote
local orm = assert(regolith.open { entities = { Vote }, timeout_ms = 30000, lazy = true })
local seed, times = tonumber(arg[1]), tonumber(arg[2])
local ROWS = 10
math.randomseed(seed)

local made, lost = 0, 0

local function count(answer)
  if answer.applied then
    made = made + 1
  else
    assert(answer.conflict or (answer.failed and answer.err.retriable), answer.err or answer.outcome)
    lost = lost + 1
  end
end

--- A failure of one write as an answer.
local function answer_of(answer, err) return answer or { failed = true, err = err } end

while made < times do
  local db = orm:session()
  if math.random(2) == 1 then
    local vote = assert(db:get(Vote, math.random(ROWS)))
    count(answer_of(db:update(vote, { n = vote.n + 1 }, { cas = { n = vote.n } })))
  elseif math.random(2) == 1 then
    local ok, err = db:transaction(function()
      local vote = assert(db:get(Vote, math.random(ROWS)))
      vote.n = vote.n + 1
      return db:flush()
    end)
    if not ok then assert(err.retriable or err.code == "CONFLICT", err) end
    if ok then made = made + 1 else lost = lost + 1 end
  else
    local list = {}
    for _, vote in ipairs(assert(db:get_many(Vote, { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }))) do
      if math.random(3) == 1 then list[#list + 1] = { vote, { n = vote.n + 1 }, cas = "version" } end
    end
    for _, answer in ipairs(assert(db:update_all(list))) do count(answer) end
  end
  db:close()
end
orm:close()
print("done", made, lost)
