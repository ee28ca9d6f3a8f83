-- Says that this sidecar lives, and counts those that do.
--
-- KEYS[1]    the sorted set of instances: member an instance's id, score its last beat in seconds
-- ARGV[1]    this instance's id
-- ARGV[2]    seconds after which a silent instance counts as gone
-- returns    how many live, this one included
--
-- It writes, so it is also the probe after an outage: a server that answers but cannot write (still
-- loading, a replica, out of memory) is not back yet. Redis's clock judges all, so skewed
-- sidecars count alike.

local now = tonumber(redis.call('TIME')[1])
local silence = tonumber(ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - silence)
redis.call('EXPIRE', KEYS[1], silence)
return redis.call('ZCARD', KEYS[1])
