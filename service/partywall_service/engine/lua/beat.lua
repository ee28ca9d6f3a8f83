-- Says that this sidecar lives, and which SDK processes asked it of late; counts all that live.
--
-- KEYS[1]    the sorted set of sidecars: member an instance's id, score its last beat in seconds
-- KEYS[2]    the sorted set of SDK processes, likewise: when a sidecar last told of it
-- ARGV[1]    this sidecar's id
-- ARGV[2]    seconds after which a silent sidecar counts as gone
-- ARGV[3]    seconds after which a silent SDK process does
-- ARGV[4..]  the ids of SDK processes; perhaps none
-- returns    how many sidecars live, this one included; how many SDK processes
--
-- It writes, so it is also the probe after an outage: a server that answers but cannot write (still
-- loading, a replica, out of memory) is not back yet. Redis's clock judges all, so skewed
-- sidecars count alike.

local now = tonumber(redis.call('TIME')[1])

local function alive(key, silence, first, last)
  for place = first, last do
    redis.call('ZADD', key, now, ARGV[place])
  end
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - silence)
  redis.call('EXPIRE', key, silence)
  return redis.call('ZCARD', key)
end

return {
  alive(KEYS[1], tonumber(ARGV[2]), 1, 1),
  alive(KEYS[2], tonumber(ARGV[3]), 4, #ARGV),
}
