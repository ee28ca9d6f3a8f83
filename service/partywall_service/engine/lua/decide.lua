-- Answers a batch of questions about sliding windows, in order, as one atomic step.
--
-- KEYS[i]    a ring, the hash of one tenant's, one limit's, one window:
--              n        the newest sub-bucket in whose time something was charged (an index since
--                       the epoch); leases are charged to later ones, and do not move it there.
--                       After the point, in 64ths: how far from it the last one with a cost is,
--                       1 or 2 after it, or 63 to 32 for 1 to 32 before it
--              s        the cost of all the sub-buckets kept, which are n - 32 to n + 2
--              0..34    the cost of the one whose index has this remainder by 35
--            or a lease, a string of whole numbers with spaces between: its units, the microsecond
--            until which they can be given back, then of each window its length in microseconds and
--            the sub-bucket charged
-- ARGV[1]    now in microseconds, or '' for this server's clock (tests give one)
-- ARGV[2]    the plans, as whole numbers with spaces between; each: how many windows, how long its
--            leases last in microseconds, then of each window its quota and length in microseconds
-- ARGV[3]    the questions, likewise; each: its plan (from 1), its first key (from 1; its windows'
--            rings follow one another), its units, and what is asked:
--              0        a check of this cost, to look only
--              1        a check of this cost
--              2        a lease of this cost at least; then its need, how much ahead at most, how
--                       many microseconds it lasts if nothing is granted ahead, and the key of the
--                       lease (from 1; 0: none, and nothing ahead)
--              3        a return of this many; then the key of the lease
-- returns    flat integers; of each question: 1 allowed or 0, retry_after in microseconds (-1: never),
--            for a lease the units granted and for a return those taken back, then of each of its
--            windows: the cost charged, reset_after in microseconds
--
-- Closes the race of two sidecars that both read a window before either charges it: reading and
-- charging are one step here. All windows of a limit are read before any is charged, so a denial
-- changes none. A denial writes nothing at all: a flood of them costs no replication, and a clock
-- set back after it finds every charge still there. A lease's record goes in the step that takes its
-- units back, so a return that is sent twice takes them once.

local SUB_BUCKETS = 32
local AHEAD = 2
local AHEAD_SHARE = 8
local LEASE_KEPT = 15000
local SLOTS = SUB_BUCKETS + 1 + AHEAD
local STRETCH = SUB_BUCKETS / 2
local VIRTUAL_LIFE = 3600000
local ALL_SLOTS = {}
for slot = 0, SLOTS - 1 do
  ALL_SLOTS[slot + 1] = slot
end

local floor, max, min = math.floor, math.max, math.min
local call = redis.call

local virtual = ARGV[1] ~= ''
local now
if virtual then
  now = tonumber(ARGV[1])
else
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
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

local function life(milliseconds)
  return virtual and VIRTUAL_LIFE or milliseconds
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
    local last = ring.last
    local n = last == current and current or pack(current, last)
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

local plans = {}
local next_number = string.gmatch(ARGV[2], '%d+')
for windows in next_number do
  local plan = { horizon = tonumber(next_number()) }
  for w = 1, tonumber(windows) do
    plan[w] = { quota = tonumber(next_number()), window = tonumber(next_number()) }
  end
  plans[#plans + 1] = plan
end

next_number = string.gmatch(ARGV[3], '%d+')
local rings = {} -- by key, not by place: two questions with plans of their own may share one
local asked = {} -- the rings of the question at hand, by window
local reply = {}
local said = 0
local function say(first, second)
  reply[said + 1] = first
  reply[said + 2] = second
  said = said + 2
end

local function say_windows(plan)
  for w = 1, #plan do
    say(asked[w].sum, reset_after(asked[w]))
  end
end

local function say_denied(plan, cost)
  local retry_after = 0
  for w = 1, #plan do
    local ring, quota = asked[w], plan[w].quota
    if retry_after >= 0 and ring.sum + cost > quota then
      local wait = wait_for(ring, cost, quota)
      retry_after = wait < 0 and wait or max(retry_after, wait)
    end
  end
  say(0, retry_after)
end

local function deny(plan, cost)
  say_denied(plan, cost)
  say_windows(plan)
end

local function check(plan, cost)
  say(1, 0)
  for w = 1, #plan do
    local ring = asked[w]
    local current, sum = ring.current, ring.sum + cost
    local last = ring.last
    ring.sum = sum
    ring.here = ring.here + cost
    ring.charged = true
    if not last or last < current then
      last = current
      ring.last = current
    end
    say(sum, leaves_after(ring, last))
  end
end

-- What would be, and nothing changed.
local function look(plan, cost)
  say(1, 0)
  for w = 1, #plan do
    local ring = asked[w]
    say(ring.sum + cost, leaves_after(ring, max(ring.last or 0, ring.current)))
  end
end

-- The sub-bucket of each window in which a lease that begins now ends.
local function ending(plan, horizon)
  local ends = {}
  for w = 1, #plan do
    local ring = asked[w]
    -- Where the clock was set back, time stands still at the beginning of the newest sub-bucket.
    ends[w] = floor((max(now, ring.current * ring.width) + horizon) / ring.width)
  end
  return ends
end

local function lease(plan, cost, room)
  local need, ahead = tonumber(next_number()), tonumber(next_number())
  local within = tonumber(next_number())
  local record = KEYS[tonumber(next_number())]
  if cost > room then
    say_denied(plan, cost)
    said = said + 1
    reply[said] = 0
    return say_windows(plan)
  end
  local granted = max(cost, min(need, room))
  local extra = record and min(ahead, floor((room - granted) / AHEAD_SHARE)) or 0
  local ends
  if extra > 0 then
    ends = ending(plan, plan.horizon)
    local units = granted + extra
    local kept = string.format('%.0f %.0f', units, now + LEASE_KEPT * 1000)
    for w = 1, #plan do
      kept = kept .. string.format(' %.0f %.0f', plan[w].window, ends[w])
    end
    -- An id that is known already is a question that was sent twice. What it needs is charged once
    -- more, for either answer may be the one that is used; nothing is granted ahead, and the record
    -- stays as it is, so never more is taken back than was charged.
    if call('SET', record, kept, 'NX', 'PX', life(LEASE_KEPT)) then
      granted = units
    end
  else
    ends = ending(plan, within)
  end
  for w = 1, #plan do
    charge_at(asked[w], ends[w], granted)
  end
  say(1, 0)
  said = said + 1
  reply[said] = granted
  say_windows(plan)
end

local function give_back(plan, units)
  local record = KEYS[tonumber(next_number())]
  local kept = call('GET', record)
  local next_kept = kept and string.gmatch(kept, '%d+')
  local granted = kept and tonumber(next_kept())
  local known = kept and now <= tonumber(next_kept())
  local taken = 0
  if known then
    call('DEL', record)
    taken = min(units, granted)
    for window in next_kept do
      local index = tonumber(next_kept())
      for w = 1, #plan do
        if plan[w].window == tonumber(window) then
          take_back(asked[w], index, taken)
        end
      end
    end
  end
  say(known and 1 or 0, 0)
  said = said + 1
  reply[said] = taken
  say_windows(plan)
end

for number in next_number do
  local plan = plans[tonumber(number)]
  local before = tonumber(next_number()) - 1
  local units = tonumber(next_number())
  local kind = next_number()
  local room = math.huge
  for w = 1, #plan do
    local key = KEYS[before + w]
    local ring = rings[key]
    if not ring then
      ring = read(key, plan[w].window)
      rings[key] = ring
    end
    asked[w] = ring
    local left = plan[w].quota - ring.sum
    if left < room then
      room = left
    end
  end
  if kind == '3' then
    give_back(plan, units)
  elseif kind == '2' then
    lease(plan, units, room)
  elseif units > room then
    deny(plan, units)
  elseif kind == '1' then
    check(plan, units)
  else
    look(plan, units)
  end
end

for _, ring in pairs(rings) do
  if ring.charged or ring.given_back then
    write(ring)
  end
end

return reply
