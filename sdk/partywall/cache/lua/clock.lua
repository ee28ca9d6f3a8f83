-- What every script of the cache begins with: the clock, and the names of a tenant's two indexes.
--
-- KEYS[1]    the index by expiry: a sorted set, member a key's name, score the last millisecond in
--            which it lives (inf: it has no TTL)
-- KEYS[2]    the index by use: the same members, score the microsecond of their last use
-- ARGV[1]    now in microseconds, or '' for this server's clock (tests give one)
--
-- KEYS[1] ends in `expiry` where the names of the tenant's values have `v:` and a member.
--
-- A value is a string key of its own, which the server takes away when its time has come; its
-- entries in the indexes are then not counted, and leave with a later script. Names of values that
-- leave are made here and not declared as KEYS: they bear the tenant's hash tag, so a cluster has
-- them on this node.

local call = redis.call
local expiry, used = KEYS[1], KEYS[2]
local values = string.sub(expiry, 1, -#'expiry' - 1) .. 'v:'

local virtual = ARGV[1] ~= ''
local now
if virtual then
  now = tonumber(ARGV[1])
else
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end
local now_ms = math.floor(now / 1000)

local function member_of(name)
  return string.sub(name, #values + 1)
end

local function lives(member)
  local score = call('ZSCORE', expiry, member)
  return score and tonumber(score) >= now_ms
end
