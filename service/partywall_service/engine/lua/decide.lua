-- Decides a batch of checks against sliding windows, in order, as one atomic step.
--
-- KEYS[i]    a ring, the hash of one tenant's, one limit's, one window:
--              n        the newest sub-bucket ever charged (an index since the epoch)
--              s        the cost of all its live sub-buckets
--              0..32    the cost of the sub-bucket whose index has this remainder by 33
-- ARGV[1]    now in microseconds, or '' for this server's clock (tests give one)
-- ARGV[2]    the plans, as whole numbers with spaces between; each: how many windows, then of each
--            its quota and its length in microseconds
-- ARGV[3]    the checks, likewise; each: its plan (from 1), its first key (from 1; its windows' rings
--            follow one another), its cost, and 1 to charge or 0 to look only
-- returns    flat integers; of each check: 1 allowed or 0, retry_after in microseconds (-1: never),
--            then of each of its windows: the cost charged, reset_after in microseconds
--
-- Closes the race of two sidecars that both read a window before either charges it: reading and
-- charging are one step here. All windows of a limit are read before any is charged, so a denial
-- changes none. A denial writes nothing at all: a flood of them costs no replication, and a clock
-- set back after it finds every charge still there.

local SUB_BUCKETS = 32
local SLOTS = SUB_BUCKETS + 1
local STRETCH = SUB_BUCKETS / 2
local ALL_SLOTS = {}
for slot = 0, SUB_BUCKETS do
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

-- A ring as it stands now. Read once in a batch however many checks ask for it, written once after.
local function read(key, window)
  local width = window / SUB_BUCKETS
  local clock = floor(now / width)
  local head = call('HMGET', key, 'n', 's', clock % SLOTS)
  local ring = { key = key, width = width, current = clock, sum = 0, here = 0 }
  local newest = tonumber(head[1])
  if not newest then
    return ring
  end
  ring.newest = newest
  ring.sum = tonumber(head[2])
  if clock == newest then
    ring.here = tonumber(head[3]) or 0
  elseif clock < newest then
    -- The clock was set back: go on from the newest sub-bucket, so that no past is reopened.
    ring.current = newest
    ring.here = tonumber(call('HGET', key, newest % SLOTS)) or 0
  else
    -- Sub-buckets that leave between the newest and now; they are dropped when something is charged.
    -- The last of them has the slot that is asked for with the head, and is overwritten then.
    if clock - newest <= SLOTS then
      ring.sum = ring.sum - (tonumber(head[3]) or 0)
    end
    local first, last = newest - SUB_BUCKETS, min(newest, clock - SLOTS - 1)
    if first <= last then
      local slots = {}
      for index = first, last do
        slots[index - first + 1] = index % SLOTS
      end
      local costs = call('HMGET', key, unpack(slots))
      for i = 1, #slots do
        if costs[i] then
          ring.sum = ring.sum - costs[i]
        end
      end
      ring.leaving = slots
    end
  end
  return ring
end

-- Microseconds until the sub-bucket stops counting.
local function leaves_after(ring, index)
  return (index + SLOTS) * ring.width - now
end

-- Microseconds until the cost has room, absent other traffic: enough of the oldest must leave.
local function wait_for(ring, cost, quota)
  if cost > quota then
    return -1
  end
  local sum = ring.sum
  if ring.newest then
    -- All slots are read once, when a first denial asks. Those of sub-buckets beyond the newest
    -- still hold what left a whole turn ago, so the walk ends there.
    ring.costs = ring.costs or call('HMGET', ring.key, unpack(ALL_SLOTS))
    for index = ring.current - SUB_BUCKETS, min(ring.newest, ring.current - 1) do
      local charged = ring.costs[index % SLOTS + 1]
      if charged then
        sum = sum - charged
        if sum + cost <= quota then
          return leaves_after(ring, index)
        end
      end
    end
  end
  return leaves_after(ring, ring.current)
end

local function reset_after(ring)
  if ring.sum == 0 then
    return 0
  end
  return leaves_after(ring, ring.charged and ring.current or ring.newest)
end

local plans = {}
local next_number = string.gmatch(ARGV[2], '%d+')
for windows in next_number do
  local plan = {}
  for w = 1, tonumber(windows) do
    plan[w] = { quota = tonumber(next_number()), window = tonumber(next_number()) }
  end
  plans[#plans + 1] = plan
end

local rings = {} -- by key, not by place: two checks with plans of their own may share one
local asked = {} -- the rings of the check at hand, by window
local reply = {}
local said = 0
local function say(first, second)
  reply[said + 1] = first
  reply[said + 2] = second
  said = said + 2
end

next_number = string.gmatch(ARGV[3], '%d+')
for number in next_number do
  local plan = plans[tonumber(number)]
  local before = tonumber(next_number()) - 1
  local cost = tonumber(next_number())
  local charge = next_number() == '1'

  local allowed = true
  for w = 1, #plan do
    local key = KEYS[before + w]
    local ring = rings[key]
    if not ring then
      ring = read(key, plan[w].window)
      rings[key] = ring
    end
    asked[w] = ring
    if ring.sum + cost > plan[w].quota then
      allowed = false
    end
  end

  local retry_after = 0
  for w = 1, #plan do
    local ring = asked[w]
    if allowed then
      if charge then
        ring.sum = ring.sum + cost
        ring.here = ring.here + cost
        ring.charged = true
      end
    elseif retry_after >= 0 and ring.sum + cost > plan[w].quota then
      local wait = wait_for(ring, cost, plan[w].quota)
      retry_after = wait < 0 and wait or max(retry_after, wait)
    end
  end

  say(allowed and 1 or 0, retry_after)
  for w = 1, #plan do
    local ring = asked[w]
    if allowed and not charge then
      say(ring.sum + cost, leaves_after(ring, ring.current)) -- what would be, and nothing changed
    else
      say(ring.sum, reset_after(ring))
    end
  end
end

for _, ring in pairs(rings) do
  if ring.charged then
    if ring.leaving then
      call('HDEL', ring.key, unpack(ring.leaving))
    end
    local slot = ring.current % SLOTS
    if ring.current == ring.newest then
      call('HSET', ring.key, 's', ring.sum, slot, ring.here)
    else
      call('HSET', ring.key, 'n', ring.current, 's', ring.sum, slot, ring.here)
      -- It lives until its newest sub-bucket has left, and a stretch longer, so that its life need
      -- be set anew only where a stretch begins. Virtual time runs apart from the server's: there
      -- an hour stands in.
      if not ring.newest or floor(ring.newest / STRETCH) ~= floor(ring.current / STRETCH) then
        local left = reset_after(ring) + STRETCH * ring.width
        call('PEXPIRE', ring.key, virtual and 3600000 or floor(left / 1000) + 1)
      end
    end
  end
end

return reply
