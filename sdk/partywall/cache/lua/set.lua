-- Sets a value, if its key lives already or the tenant has room for one more.
--
-- KEYS[1], KEYS[2], ARGV[1]    as in clock.lua, which comes before
-- KEYS[3]    the value's name
-- ARGV[2]    the value
-- ARGV[3]    three whole numbers with spaces between: its TTL in milliseconds (-1: none), how many
--            keys the tenant may have (-1: any number), 1 to make room by evicting its least
--            recently used or 0 to refuse
-- returns    1 stored; 0 refused; -1 much was evicted and more must be: call again
--
-- Closes the race of two setters that both count before either adds: counting and adding are one
-- step here. A refusal looks for values that the server itself evicted for want of memory, so that
-- their entries do not take up room.

local EVICTED_AT_ONCE = 500
local LOOKED_AT = 16

local member, value = member_of(KEYS[3]), ARGV[2]
local ttl, limit, evicts = string.match(ARGV[3], '^(%S+) (%S+) (%S+)$')
ttl, limit = ttl ~= '-1' and tonumber(ttl), limit ~= '-1' and tonumber(limit)

local function forget_lost()
  local lost = {}
  for _, one in ipairs(call('ZRANDMEMBER', expiry, LOOKED_AT)) do
    if call('EXISTS', values .. one) == 0 then
      lost[#lost + 1] = one
    end
  end
  if #lost > 0 then
    forget(lost)
  end
end

local function evict(excess)
  local last = math.min(excess, EVICTED_AT_ONCE) - 1
  local members = call('ZRANGE', used, 0, last)
  if #members == 0 then -- the server evicted the index itself
    members = call('ZRANGE', expiry, 0, last)
  end
  drop(members)
end

-- Whether an index lives longer than the key; it may be new, and have no TTL yet.
local function outlives(index)
  local left = call('PTTL', index) -- -1: for ever
  if ttl then
    return left > ttl
  end
  return left == -1
end

if not lives(member) then
  sweep()
  local excess = limit and count() - limit + 1 or 0
  if excess > 0 then
    local may_evict = evicts == '1' and limit > 0
    if may_evict then
      evict(excess)
    else
      forget_lost()
    end
    if count() >= limit then
      keep()
      return may_evict and -1 or 0
    end
  end
end

-- Indexes first: whatever happens to this call, no value lives that is not counted.
if ttl then
  call('ZADD', expiry, now_ms + ttl, member)
else
  call('ZADD', expiry, '+inf', member)
end
call('ZADD', used, now, member)
if not (outlives(expiry) and outlives(used)) then
  keep()
end
if not ttl then
  call('SET', KEYS[3], value)
elseif virtual then
  call('SET', KEYS[3], value, 'PX', VIRTUAL_LIFE)
else
  call('SET', KEYS[3], value, 'PXAT', now_ms + ttl)
end
return 1
