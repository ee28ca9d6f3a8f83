-- Says that a tenant is erased, and removes its counts.
--
-- KEYS[1]    its tombstone, a string: the microsecond at which it was erased
-- KEYS[2]    its counts (include/usage.lua of the engine)
-- KEYS[3]    the set of its shard's tenants that have counts
-- ARGV[1]    now in microseconds, or '' for this server's clock (tests give one)
-- ARGV[2]    the tenant
-- returns    1 if it had counts, else 0
--
-- Closes the race of an erasure and a report that is late: from this step on what was counted before
-- it is dropped (add.lua), by the clock of the server that drops it.

local STONE_KEPT = 86400 -- seconds; older reports are refused (reported.py)

local call = redis.call

local now = ARGV[1]
if now == '' then
  local time = call('TIME')
  now = string.format('%.0f', time[1] * 1000000 + time[2])
end

call('SET', KEYS[1], now, 'EX', STONE_KEPT)
call('SREM', KEYS[3], ARGV[2])
return call('UNLINK', KEYS[2])
