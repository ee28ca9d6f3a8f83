-- Answers a batch of questions about sliding windows, in order, as one atomic step.
--
-- KEYS[i]    a ring, the hash of one tenant's, one limit's, one window (include/ring.lua),
--            or a lease, a string of whole numbers with spaces between: its units, the microsecond
--            until which they can be given back, then of each window its length in microseconds and
--            the sub-bucket charged,
--            or a tenant's counts of usage (include/usage.lua)
-- ARGV[1]    now in microseconds, or '' for this server's clock (tests give one)
-- ARGV[2]    the plans, as whole numbers with spaces between; each: how many windows, how long its
--            leases last in microseconds, then of each window its quota and length in microseconds
-- ARGV[3]    the questions, likewise; each: its plan (from 1), its first key (from 1; its windows'
--            rings follow one another), its units, and what is asked:
--              0        a check of this cost, to look only
--              1        a check of this cost; then the key where its decision is counted (from 1;
--                       0: nowhere)
--              2        a lease of this cost at least; then its need, how much ahead at most, how
--                       many microseconds it lasts if nothing is granted ahead, and the key of the
--                       lease (from 1; 0: none, and nothing ahead)
--              3        a return of this many; then the key of the lease
--              4, 5     nothing: that so many were admitted, or denied, is only counted; then the key
--                       where
-- ARGV[4]    of each plan two words: what its limit's meters begin with, and that of a denial ends with
-- returns    flat integers; of each question: 1 allowed or 0, retry_after in microseconds (-1: never),
--            for a lease the units granted and for a return those taken back, then of each of its
--            windows: the cost charged, reset_after in microseconds
--
-- Closes the race of two sidecars that both read a window before either charges it: reading and
-- charging are one step here. All windows of a limit are read before any is charged, so a denial
-- changes none: a clock set back after it finds every charge still there. What was decided is counted
-- in the same step, so a report is as exact as the decisions; a tenant's decisions of one call are
-- counted together, so a flood of denials costs next to no replication. A lease's record goes in the
-- step that takes its units back, so a return that is sent twice takes them once.

local AHEAD_SHARE = 8
local LEASE_KEPT = 15000
local VIRTUAL_LIFE = 3600000

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

-- How long a key lives. Virtual time runs apart from the server's: there an hour stands in.
local function life(milliseconds)
  return virtual and VIRTUAL_LIFE or milliseconds
end

--- @include "ring"
--- @include "usage"

local plans = {}
local next_number = string.gmatch(ARGV[2], '%d+')
for windows in next_number do
  local plan = { horizon = tonumber(next_number()) }
  for w = 1, tonumber(windows) do
    plan[w] = { quota = tonumber(next_number()), window = tonumber(next_number()) }
  end
  plans[#plans + 1] = plan
end

local next_word = string.gmatch(ARGV[4], '%S+')
for p = 1, #plans do
  local limit = next_word()
  plans[p].admitted = limit .. 'admitted'
  plans[p].denied = limit .. next_word()
end

local tallies = {} -- by the key where they are counted, by meter
local function tally(key, meter, n)
  local counts = tallies[key]
  if not counts then
    counts = {}
    tallies[key] = counts
  end
  counts[meter] = (counts[meter] or 0) + n
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

local function say_units(units)
  said = said + 1
  reply[said] = units
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

-- Most questions are checks: each is charged here and now, without a call for every ring.
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
    say_units(0)
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
  say_units(granted)
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
  say_units(taken)
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
  elseif kind == '1' then
    local counted = KEYS[tonumber(next_number())]
    if units > room then
      say_denied(plan, units)
      say_windows(plan)
    else
      check(plan, units)
    end
    if counted then
      tally(counted, units > room and plan.denied or plan.admitted, 1)
    end
  elseif kind == '0' then
    if units > room then
      say_denied(plan, units)
      say_windows(plan)
    else
      look(plan, units)
    end
  else
    local counted = KEYS[tonumber(next_number())]
    if counted then
      tally(counted, kind == '4' and plan.admitted or plan.denied, units)
    end
    say(1, 0)
  end
end

for _, ring in pairs(rings) do
  if ring.charged or ring.given_back then
    write(ring)
  end
end

for key, counts in pairs(tallies) do
  for meter, n in pairs(counts) do
    add_count(key, meter, n)
  end
end

return reply
