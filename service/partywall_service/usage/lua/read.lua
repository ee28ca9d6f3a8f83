-- Reads tenants' counts, whole ones, as far as one call should go.
--
-- KEYS[i]    a tenant's counts (include/usage.lua of the engine)
-- ARGV[1]    now in microseconds, or '' for this server's clock (tests give one)
-- ARGV[2]    how many fields are enough for one call
-- returns    the minute that runs; then of each tenant, in order, as far as it came: its fields and
--            their values, in turns; or, of one that has more than enough by itself, how many fields
--
-- The minute comes in the same step, from the server that counts: what is of an earlier one is
-- final, whatever the clocks of other servers and of the caller say.

local call = redis.call

local enough = tonumber(ARGV[2])
local now
if ARGV[1] ~= '' then
  now = tonumber(ARGV[1])
else
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

local reply = { math.floor(now / 60000000) }
local fields = 0
for k = 1, #KEYS do
  local n = call('HLEN', KEYS[k])
  fields = fields + n
  if fields > enough and k > 1 then
    break
  end
  reply[#reply + 1] = n > enough and n or call('HGETALL', KEYS[k])
end

return reply
