-- Takes away counts that are kept elsewhere by now; those that have changed since stay.
--
-- KEYS[1]  the queue
-- ARGV[1]  now in milliseconds, or ''
-- ARGV[2..] for each count 4: tenant, minute, meter, value
--
-- In one step with the word of it, so that nobody counts anew in a minute that was taken away.
--- @include "keys"

local rolled = redis.call('GET', one_of('rolled'))
local newest = tonumber(rolled or '-1')
local touched = {}
for at = 2, #ARGV, 4 do
  local key, field = of('usage', ARGV[at]), ARGV[at + 1] .. '|' .. ARGV[at + 2]
  if redis.call('HGET', key, field) == ARGV[at + 3] then
    redis.call('HDEL', key, field)
    touched[ARGV[at]] = true
    newest = math.max(newest, tonumber(ARGV[at + 1]))
  end
end
for id in pairs(touched) do
  if redis.call('EXISTS', of('usage', id)) == 0 then redis.call('SREM', one_of('metered'), id) end
end
if rolled then redis.call('SET', one_of('rolled'), string.format('%.0f', newest), 'KEEPTTL') end
