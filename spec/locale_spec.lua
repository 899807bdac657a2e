-- SPDX-License-Identifier: MIT
-- A program may have a locale that writes 1,5 for 1.5.

local faults = require "support.faults"
local support = require "support.init"

describe("a locale with a decimal comma", function()
  local world, dir

  setup(function() world = support.world() end)
  teardown(function()
    world:close()
    os.execute("rm -rf '" .. dir .. "'")
  end)

  it("changes nothing that is written or read", function()
    dir = support.shell "mktemp -d":gsub("%s+$", "")
    local said, made = support.shell("localedef -i de_DE -f UTF-8 " .. dir .. "/de_DE.UTF-8")
    if not made and said:find "cannot open locale definition" then
      pending "needs the package locales"
      return
    end
    assert.is_truthy(made, said)
    local process = faults.spawn("comma", {
      REGOLITH_MYSQL_URL = world.mysql_url(world.name), REGOLITH_REDIS_URL = world.redis_url(),
      REGOLITH_PREFIX = world.name, LOCPATH = dir, LC_ALL = "de_DE.UTF-8",
    })
    local ok, text = process:wait(60)
    assert.is_true(ok, text)
    assert.matches("all as it should be\n$", text)
  end)
end)
