-- SPDX-License-Identifier: MIT
-- The demo: main.lua INDEX FOLDER. Started by scripts/demo.

local load = require "load"
local model = require "model"
local screen = require "screen"
local tour = require "tour"
local verify = require "verify"

local index, folder = arg[1], arg[2]
local began = screen.now()
local orm = model.open()

screen.say("servers: %s", os.getenv "REGOLITH_DURABILITY")
screen.timed("statements to make the tables", "statements", function() return #assert(orm:schema_apply()).applied end)

screen.title "loading the package index: queued here, applied by another process meanwhile"
local consumer = os.getenv "DEMO_CONSUMER"
screen.say("the consumer is process %s", consumer)
local started = screen.now()
local loaded = load.queue(orm, index)
load.wait(orm, loaded.ops, consumer)
screen.done("operations queued (parsing included)", loaded.ops, "operations", loaded.seconds)
screen.done("operations durable in MySQL", loaded.ops, "operations", screen.now() - started)
screen.check("operations applied", tonumber(assert(orm:queues())[1].applied), loaded.ops)
screen.check("dead letters", #assert(orm:dead_letters()), 0)

screen.title "comparing with an independent pass of awk over the same index"
screen.timed("rows compared with awk's pass", "rows", function() return verify.all(orm, index, folder) end)

tour.reads(orm)
tour.search(orm)
tour.update(orm)
tour.delete(orm)
tour.duplicate(orm)
tour.dead_letter(orm)
orm:close()

screen.table()
screen.say("\n%.1f seconds in all, %d checks failed", screen.now() - began, screen.failures())
os.exit(screen.failures() == 0 and 0 or 1)
