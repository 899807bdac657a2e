-- SPDX-License-Identifier: MIT
-- A worker of callbacks that notes each run in the table `run`; words: the handler in which to die of a
-- kill -9 (or "-"), and whether before ("early") or after ("late") its note.

require "support.programs.follow"
local ffi = require "ffi"
local regolith = require "regolith"

pcall(ffi.cdef, "int kill(int pid, int signal); int getpid(void);")

local victim, when = arg[1], arg[2]
local orm
local function die() ffi.C.kill(ffi.C.getpid(), 9) end

local function note(payload, callback)
  local dies = callback.name == victim and (payload.poison or callback.tries == 1)
  if dies and when == "early" then die() end
  local session = orm:session()
  assert(session:execute("INSERT INTO run (uid, `key`, n) VALUES (?, ?, ?)", callback.id, callback.key, payload.n))
  session:close()
  if dies then die() end
end

orm = assert(regolith.open { entities = {}, timeout_ms = 5000, callbacks = { note = note, other = note } })
local worker = orm:callback_worker { lease_s = 0.3, batch = 4, max_tries = 3, first_backoff_ms = 1 }
io.write "working\n"
io.flush()
assert(worker:run { signals = true, idle_s = 0.02 })
io.write "ended\n"
