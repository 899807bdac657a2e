-- SPDX-License-Identifier: MIT
-- A subscriber of the stream "numbers", group "counters", that notes each event in the table `heard`;
-- words: the number that kills it (or "-"), and whether before ("early") or after ("late") its note.

require "support.programs.follow"
local ffi = require "ffi"
local regolith = require "regolith"

pcall(ffi.cdef, "int kill(int pid, int signal); int getpid(void);")

local victim, when = tonumber(arg[1]), arg[2]
local orm = assert(regolith.open { entities = {}, timeout_ms = 5000, redis = os.getenv "REGOLITH_REDIS_URL" })
local function die() ffi.C.kill(ffi.C.getpid(), 9) end

local subscriber = orm:subscriber("numbers", { group = "counters", claim_after_s = 0.2, batch = 4, max_tries = 3,
  handler = function(event)
    local dies = event.body.n == victim
    if dies and when == "early" then die() end
    local session = orm:session()
    assert(session:execute("INSERT INTO heard (uid, n) VALUES (?, ?)", event.id, event.body.n))
    session:close()
    if dies then die() end
  end })
io.write "listening\n"
io.flush()
assert(subscriber:run { signals = true, idle_s = 0.05 })
io.write "ended\n"
