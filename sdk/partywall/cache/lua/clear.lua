-- Deletes some of a tenant's keys: call it until it answers that none is left.
--
-- KEYS[1], KEYS[2], ARGV[1]    as in clock.lua, which comes before
-- returns    how many of those it deleted lived; how many entries are left
--
-- Some at a time, so that other clients of the server do not wait long. What is not deleted yet
-- stays counted, so there is no room for more than the limit in between.

local DELETED_AT_ONCE = 500

local before = count()
local members = call('ZRANGE', expiry, 0, DELETED_AT_ONCE - 1)
if #members > 0 then
  drop(members)
end
keep()
return { before - count(), call('ZCARD', expiry) }
