-- Gets values, and says that they were used.
--
-- KEYS[1]    the index by use, as in clock.lua
-- KEYS[2..]  the values' names
-- ARGV[1]    now in microseconds; left out for this server's clock (tests give one)
-- returns    each value, or false
--
-- It stands alone and takes as little as it can: it is called more than all others together. What
-- is not indexed stays so: a value is marked as used where it is found, never added.

local now = ARGV[1]
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local member_at = #KEYS[1] - #'used' + #'v:' + 1
local found = redis.call('MGET', unpack(KEYS, 2))
for place, value in ipairs(found) do
  if value then
    redis.call('ZADD', KEYS[1], 'XX', now, string.sub(KEYS[place + 1], member_at))
  end
end
return found
