-- SPDX-License-Identifier: MIT
-- A process that requires this ends with its parent.

local ffi = require "ffi"

ffi.cdef "int prctl(int option, ...);"
local PR_SET_PDEATHSIG, SIGKILL = 1, 9
ffi.C.prctl(PR_SET_PDEATHSIG, ffi.cast("long", SIGKILL))
