-- SPDX-License-Identifier: MIT
-- The state machine of a cache entry, walked on a real Redis.

local states = require "support.states"

describe("the states of an entry", function()
  it("become under every command what the table says", function()
    local found, documented = states.table(), states.documented()
    assert.equal(#states.STATES + 1, #found)
    for i, line in ipairs(found) do assert.equal(documented[i], line) end
    assert.equal(#documented, #found)
  end)

  it("never let a transaction's mark be passed by a reader or a queued write", function()
    for _, line in ipairs(states.documented()) do
      local name, rest = line:match "^(M%S*)%s+(.*)$"
      if name and not name:find("~", 1, true) then
        local cells = {}
        for cell in rest:gmatch "%S+" do cells[#cells + 1] = cell end
        assert.same({ "=:b", "=:b", "=", "=", "=", "=" }, { unpack(cells, 1, 6) }, name)
        assert.same({ "=:3", "=:3", "=:3", "=:3" }, { unpack(cells, 13, 16) }, name)
      end
    end
  end)
end)
