-- Removes counts that are kept elsewhere now, but none that changed since it was read.
--
-- KEYS[i]    a tenant's counts (include/usage.lua of the engine)
-- ARGV[1..]  of each tenant: how many counts, then their fields, then their values as they were read;
--            0 where only an end is made of what has none left
-- returns    how many were removed
--
-- Closes the race of the roll-up and whoever counts: comparing and removing are one step, and the
-- newest minute removed is written in it (`rolled`), so nobody makes anew what PostgreSQL has and the
-- next roll-up would put in its place.

local ROLLED_KEPT = 30 * 86400
local AT_ONCE = 1000 -- fields to a command: Lua's stack holds some thousand

local max, min = math.max, math.min
local call = redis.call

local removed = 0

-- Removes what is as it was; the newest minute of it, -1 where there is none.
local function remove(key, first, n)
  local newest = -1
  for from = first, first + n - 1, AT_ONCE do
    local to = min(from + AT_ONCE, first + n) - 1
    local values = call('HMGET', key, unpack(ARGV, from, to))
    local same = {}
    for i = from, to do
      if values[i - from + 1] == ARGV[i + n] then
        same[#same + 1] = ARGV[i]
        newest = max(newest, tonumber(string.match(ARGV[i], '^%d+')))
      end
    end
    if #same > 0 then
      removed = removed + call('HDEL', key, unpack(same))
    end
  end
  return newest
end

local at = 1
for k = 1, #KEYS do
  local key, n = KEYS[k], tonumber(ARGV[at])
  local shard, tenant = string.match(key, '^(.-{s%d+}:)(.+):usage$')
  local newest = remove(key, at + 1, n)
  at = at + 1 + 2 * n
  if newest > tonumber(call('GET', shard .. ':rolled') or '-1') then
    call('SET', shard .. ':rolled', string.format('%d', newest), 'EX', ROLLED_KEPT)
  end
  if call('EXISTS', key) == 0 then
    call('SREM', shard .. ':metered', tenant)
  end
end

return removed
