-- A ring: the sub-buckets of one window, in a hash.
--
-- n        the newest sub-bucket in whose time something was charged (an index since the epoch).
--          Leases are charged to later ones, and do not move it there. After the point, in 64ths:
--          how far from it the last sub-bucket with a cost is: 1 or 2 for so many after it, 63 to 32
--          for 1 to 32 before it, nothing where it is the same
-- s        the cost of all the sub-buckets kept, which are n - 32 to n + 2
-- 0..34    the cost of the one whose index has this remainder by 35
--
-- The script that includes this says `now`, in microseconds, and what is short for Redis and Lua:
-- `call`, `floor`, `max`, `min`; and `life`, for how long a key lives that is meant to live so long.

local SUB_BUCKETS = 32
local AHEAD = 2
local SLOTS = SUB_BUCKETS + 1 + AHEAD
local STRETCH = SUB_BUCKETS / 2
local ALL_SLOTS = {}
for slot = 0, SLOTS - 1 do
  ALL_SLOTS[slot + 1] = slot
end

-- The newest sub-bucket and the last one with a cost share a field, since every check reads both and
-- hardly ever do they differ.
local function pack(newest, last)
  return last == newest and newest or newest + (last - newest) % 64 / 64
end

local function last_of(n, newest)
  local after = (n - newest) * 64
  return newest + (after <= AHEAD and after or after - 64)
end

-- A ring as it stands now. Read once in a batch however many questions it is asked, written once
-- after. `here` is the cost of the current sub-bucket. Of others only few are ever asked for: those
-- known are in `others`, by index.
local function read(key, window)
  local width = window / SUB_BUCKETS
  local clock = floor(now / width)
  local head = call('HMGET', key, 'n', 's', clock % SLOTS, (clock + AHEAD) % SLOTS)
  local ring = {
    key = key, width = width, current = clock, sum = 0, here = 0, left = 0,
    n = false, newest = false, last = false, charged = false,
  }
  local n = tonumber(head[1])
  if not n then
    return ring
  end
  local newest = n - n % 1
  local passed = clock - newest
  if passed >= SLOTS then
    ring.stale = true -- all of it has left
    return ring
  end
  ring.n = n
  ring.newest = newest
  ring.last = n == newest and n or last_of(n, newest)
  ring.sum = tonumber(head[2])
  if passed == 0 then
    ring.here = tonumber(head[3]) or 0
  elseif passed < 0 then
    -- The clock was set back: go on from the newest sub-bucket, so that no past is reopened.
    ring.current = newest
    ring.here = tonumber(call('HGET', key, newest % SLOTS)) or 0
  else
    if passed <= AHEAD then
      ring.here = tonumber(head[3]) or 0
    end
    -- Sub-buckets that leave between the newest and now; they are dropped when something is charged.
    -- Their slots are those that come into use. That of the last is asked for with the head.
    local left = 0
    if head[4] then
      ring.freed = (clock + AHEAD) % SLOTS
      left = tonumber(head[4])
    end
    local first, last = newest - SUB_BUCKETS, clock - SLOTS + 1
    if first <= last then
      local slots = {}
      for index = first, last do
        slots[index - first + 1] = index % SLOTS
      end
      local costs = call('HMGET', key, unpack(slots))
      for i = 1, #slots do
        if costs[i] then
          left = left + costs[i]
        end
      end
      slots[#slots + 1] = (clock + AHEAD) % SLOTS
      ring.leaving = slots
    end
    ring.left = left
    ring.sum = ring.sum - left
  end
  return ring
end

-- Microseconds until the sub-bucket stops counting.
local function leaves_after(ring, index)
  return (index + SUB_BUCKETS + 1) * ring.width - now
end

local function reset_after(ring)
  return ring.sum == 0 and 0 or leaves_after(ring, ring.last)
end

-- The cost of a sub-bucket. Those beyond what is kept have the slots of what left a turn ago.
local function cost_of(ring, index)
  if index == ring.current then
    return ring.here
  end
  local known = ring.others and ring.others[index]
  if known then
    return known
  end
  if not ring.newest or index > ring.newest + AHEAD then
    return 0
  end
  local slot = index % SLOTS
  return tonumber(ring.stored and ring.stored[slot + 1] or call('HGET', ring.key, slot)) or 0
end

local function set_cost(ring, index, cost)
  if index == ring.current then
    ring.here = cost
  else
    ring.others = ring.others or {}
    ring.others[index] = cost
  end
end

-- Reads all slots, once in a batch, before a walk over them.
local function read_all(ring)
  if ring.newest and not ring.stored then
    ring.stored = call('HMGET', ring.key, unpack(ALL_SLOTS))
  end
end

-- Microseconds until the cost has room, absent other traffic: enough of the oldest must leave.
local function wait_for(ring, cost, quota)
  if cost > quota then
    return -1
  end
  read_all(ring)
  local room = quota - ring.sum
  for index = ring.current - SUB_BUCKETS, ring.last - 1 do
    room = room + cost_of(ring, index)
    if cost <= room then
      return leaves_after(ring, index)
    end
  end
  return leaves_after(ring, ring.last)
end

-- Charges a lease to the sub-bucket in which it ends.
local function charge_at(ring, index, units)
  set_cost(ring, index, cost_of(ring, index) + units)
  ring.sum = ring.sum + units
  ring.last = max(ring.last or 0, index)
  ring.charged = true
end

-- Takes units out of the sub-bucket they were charged to, unless it has left.
local function take_back(ring, index, units)
  if index < ring.current - SUB_BUCKETS then
    return
  end
  local cost = cost_of(ring, index)
  units = min(units, cost) -- less only where the server lost the ring
  if units == 0 then
    return
  end
  set_cost(ring, index, cost - units)
  ring.sum = ring.sum - units
  ring.given_back = true
  if units == cost and index == ring.last then
    -- What has left is looked through as well while it is kept: a clock set back may show it again.
    local newest = ring.charged and ring.current or ring.newest
    ring.last = newest
    read_all(ring)
    for earlier = index - 1, newest - SUB_BUCKETS, -1 do
      if cost_of(ring, earlier) > 0 then
        ring.last = earlier
        break
      end
    end
  end
end

-- Moves a ring on to the current sub-bucket, and drops what has left. It lives until all that is
-- charged in this stretch of its sub-buckets has left, so that its life need be set anew only where a
-- stretch begins.
local function advance(ring, n, slot)
  local key, newest, current = ring.key, ring.newest, ring.current
  local leaving = ring.leaving
  if ring.stale then
    call('DEL', key)
  elseif leaving then
    call('HDEL', key, unpack(leaving))
  end
  if ring.freed and not leaving then
    call('HSET', key, 'n', n, 's', ring.sum, ring.freed, 0, slot, ring.here)
  else
    call('HSET', key, 'n', n, 's', ring.sum, slot, ring.here)
  end
  if not newest or floor(newest / STRETCH) ~= floor(current / STRETCH) then
    local left = leaves_after(ring, current + STRETCH + AHEAD)
    call('PEXPIRE', key, life(floor(left / 1000) + 1))
  end
end

local function write(ring)
  local key, newest, current = ring.key, ring.newest, ring.current
  local slot = current % SLOTS
  if ring.charged then
    local n = pack(current, ring.last)
    if n == ring.n then
      call('HSET', key, 's', ring.sum, slot, ring.here)
    elseif current == newest then
      call('HSET', key, 'n', n, 's', ring.sum, slot, ring.here)
    else
      advance(ring, n, slot)
    end
  else
    -- Only given back to: nothing is dropped, and time stands where it stood.
    call('HSET', key, 'n', pack(newest, ring.last), 's', ring.sum + ring.left)
    if current <= newest + AHEAD then
      call('HSET', key, slot, ring.here)
    end
  end
  if ring.others then
    local fields = {}
    for index, cost in pairs(ring.others) do
      fields[#fields + 1] = index % SLOTS
      fields[#fields + 1] = cost
    end
    call('HSET', key, unpack(fields))
  end
end
