-- Answers a batch of questions about sliding windows, in order, as one atomic step.
--
-- KEYS[i]    a ring, the hash of one tenant's, one limit's, one window:
--              n        the newest sub-bucket in whose time something was charged (an index since
--                       the epoch); leases are charged to later ones, and do not move it there
--              s        the cost of all the sub-buckets kept, which are n - 32 to n + 2
--              l        the last of them with a cost; not there where that was always n
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
--              2        a lease of this cost at least; then its need, how much ahead at most, and the
--                       key of the lease (from 1; 0: none, and nothing ahead)
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

-- A ring as it stands now. Read once in a batch however many questions it is asked, written once
-- after. Its own number keys are slots: the costs read or charged so far.
local function read(key, window)
  local width = window / SUB_BUCKETS
  local clock = floor(now / width)
  local here = clock % SLOTS
  local head = call('HMGET', key, 'n', 's', 'l', here)
  local ring = { key = key, width = width, current = clock, sum = 0, left = 0 }
  local newest = tonumber(head[1])
  if not newest then
    return ring
  end
  local passed = clock - newest
  if passed >= SLOTS then
    ring.stale = true -- all of it has left
    return ring
  end
  ring.newest = newest
  ring.sum = tonumber(head[2])
  ring.stored_last = tonumber(head[3])
  ring.last = ring.stored_last or newest
  if passed < 0 then
    -- The clock was set back: go on from the newest sub-bucket, so that no past is reopened.
    ring.current = newest
    here = newest % SLOTS
    ring[here] = tonumber(call('HGET', key, here)) or 0
  elseif passed <= AHEAD then
    ring[here] = tonumber(head[4]) or 0
  end
  if passed > 0 then
    -- Sub-buckets that leave between the newest and now; dropped when something is charged. Their
    -- slots are those of the sub-buckets up to two after now, which hold nothing yet.
    local slots = {}
    for index = newest - SUB_BUCKETS, min(newest + AHEAD, clock - SUB_BUCKETS - 1) do
      slots[#slots + 1] = index % SLOTS
    end
    local costs = call('HMGET', key, unpack(slots))
    local leaving = {}
    for i = 1, #slots do
      if costs[i] then
        ring.left = ring.left + costs[i]
        leaving[#leaving + 1] = slots[i]
      end
    end
    ring.sum = ring.sum - ring.left
    ring.leaving = leaving
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

-- The cost of a sub-bucket, for those who ask for many: all slots are read once.
local function cost_of(ring, index)
  local slot = index % SLOTS
  local known = ring[slot]
  if known then
    return known
  end
  if not ring.newest or index > ring.newest + AHEAD then
    return 0 -- the slot still holds what left a whole turn ago
  end
  ring.stored = ring.stored or call('HMGET', ring.key, unpack(ALL_SLOTS))
  return tonumber(ring.stored[slot + 1]) or 0
end

-- Microseconds until the cost has room, absent other traffic: enough of the oldest must leave.
local function wait_for(ring, cost, quota)
  if cost > quota then
    return -1
  end
  local room = quota - ring.sum
  for index = ring.current - SUB_BUCKETS, ring.last - 1 do
    room = room + cost_of(ring, index)
    if cost <= room then
      return leaves_after(ring, index)
    end
  end
  return leaves_after(ring, ring.last)
end

local function set_cost(ring, index, cost)
  local slot = index % SLOTS
  ring[slot] = cost
  ring.changed = ring.changed or {}
  ring.changed[slot] = true
end

-- Charges a sub-bucket: the current one, or the one in which a lease ends.
local function charge(ring, index, units)
  set_cost(ring, index, cost_of(ring, index) + units)
  ring.sum = ring.sum + units
  ring.last = max(ring.last or index, index)
  ring.charged = true
end

-- Takes units out of the sub-bucket they were charged to, unless it has left.
local function take_back(ring, index, units)
  if index < ring.current - SUB_BUCKETS then
    return
  end
  local cost = cost_of(ring, index)
  units = min(units, cost)
  if units == 0 then
    return -- only a server that lost the ring gets here
  end
  set_cost(ring, index, cost - units)
  ring.sum = ring.sum - units
  if cost == units and index == ring.last then
    -- What has left is looked through as well, where it is kept: a clock set back may show it again.
    local kept = ring.charged and ring.current or ring.newest
    ring.last = kept
    for earlier = index - 1, kept - SUB_BUCKETS, -1 do
      if cost_of(ring, earlier) > 0 then
        ring.last = earlier
        break
      end
    end
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

local function check(plan, cost, room)
  if cost > room then
    say_denied(plan, cost)
  else
    say(1, 0)
    for w = 1, #plan do
      charge(asked[w], asked[w].current, cost)
    end
  end
  say_windows(plan)
end

-- What would be, and nothing changed.
local function look(plan, cost, room)
  if cost > room then
    return check(plan, cost, room)
  end
  say(1, 0)
  for w = 1, #plan do
    local ring = asked[w]
    say(ring.sum + cost, leaves_after(ring, max(ring.last or 0, ring.current)))
  end
end

local function life(milliseconds)
  return virtual and VIRTUAL_LIFE or milliseconds
end

local function lease(plan, cost, room)
  local need, ahead = tonumber(next_number()), tonumber(next_number())
  local record = KEYS[tonumber(next_number())]
  if cost > room then
    say_denied(plan, cost)
    said = said + 1
    reply[said] = 0
    return say_windows(plan)
  end
  local granted = max(cost, min(need, room))
  local extra = record and min(ahead, floor((room - granted) / AHEAD_SHARE)) or 0
  local ends = {}
  for w = 1, #plan do
    local ring = asked[w]
    -- Where the clock was set back, time stands still at the beginning of the newest sub-bucket.
    ends[w] = floor((max(now, ring.current * ring.width) + plan.horizon) / ring.width)
  end
  if extra > 0 then
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
  end
  for w = 1, #plan do
    charge(asked[w], ends[w], granted)
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

local ANSWERS = { ['0'] = look, ['1'] = check, ['2'] = lease, ['3'] = give_back }

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
    room = min(room, plan[w].quota - ring.sum)
  end
  ANSWERS[kind](plan, units, room)
end

for _, ring in pairs(rings) do
  if ring.changed then
    local newest = ring.newest
    local fields = { 's', ring.sum }
    if not ring.charged then
      fields[2] = ring.sum + ring.left -- a return drops nothing
    elseif ring.current ~= newest then
      newest = ring.current
      fields[3], fields[4] = 'n', newest
      if ring.stale then
        call('DEL', ring.key)
      elseif ring.leaving and #ring.leaving > 0 then
        call('HDEL', ring.key, unpack(ring.leaving))
      end
    end
    if ring.last ~= (ring.stored_last or newest) then
      fields[#fields + 1] = 'l'
      fields[#fields + 1] = ring.last
    end
    for slot in pairs(ring.changed) do
      fields[#fields + 1] = slot
      fields[#fields + 1] = ring[slot]
    end
    call('HSET', ring.key, unpack(fields))
    -- It lives until all that is charged in this stretch of its sub-buckets has left, so that its
    -- life need be set anew only where a stretch begins. Virtual time runs apart from the server's.
    if not ring.newest or floor(ring.newest / STRETCH) ~= floor(newest / STRETCH) then
      local left = leaves_after(ring, newest + STRETCH + AHEAD)
      call('PEXPIRE', ring.key, life(floor(left / 1000) + 1))
    end
  end
end

return reply
