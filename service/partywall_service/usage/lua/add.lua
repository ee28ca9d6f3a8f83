-- Adds what one process counted to the minute that runs: once, however often it is sent.
--
-- KEYS[1]    a string: the number of the last report of the process that was added here
-- KEYS[2i]   a tenant's counts (include/usage.lua of the engine)
-- KEYS[2i+1] the same tenant's tombstone, a string: the microsecond at which it was erased
-- ARGV[1]    now in microseconds, or '' for this server's clock (tests give one)
-- ARGV[2]    the report's number; those of one process rise
-- ARGV[3]    microseconds since the oldest of its counts
-- ARGV[4]    the meters it names, with spaces between
-- ARGV[5]    its counts, as whole numbers with spaces between; of each tenant: how many, then of each
--            its meter (from 1) and by how much it rose
-- returns    how many of its tenants were not erased since then: those that are counted, by this call
--            or by an earlier one of the same report
--
-- Closes the race of a report and its repetition, which may come by another sidecar: whether it was
-- added is looked up and written in the step that adds it. So a call that the driver sends twice,
-- because the connection broke, is safe, too.

local NUMBER_KEPT = 86400 -- seconds; what is older is not sent again (reported.py)
local ON_ITS_WAY = 5000000 -- microseconds that a report may take from where its age was told to here

local AT_ONCE = 1000 -- meters to a command: Lua's stack holds some thousand

local floor, min = math.floor, math.min
local call = redis.call

local now
if ARGV[1] ~= '' then
  now = tonumber(ARGV[1])
else
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

--- @include "partywall_service.engine/usage"

-- Adds several counts of a tenant, with few commands: a report may bring thousands in all.
local function add_counts(key, meters, rises, first, last)
  local fields, written = {}, {}
  for i = first, last do
    fields[#fields + 1] = here .. meters[i]
  end
  local held = call('HMGET', key, unpack(fields))
  local all_there = true
  for i = 1, #fields do
    all_there = all_there and held[i]
    written[2 * i - 1] = fields[i]
    written[2 * i] = string.format('%.0f', (held[i] or 0) + rises[first + i - 1])
  end
  if all_there then
    call('HSET', key, unpack(written))
    return
  end
  local shard, tenant = string.match(key, '^(.-{s%d+}:)(.+):usage$')
  if minute > rolled_up_to(shard) then
    call('HSET', key, unpack(written))
    enlist(key, shard, tenant)
    return
  end
  for i = first, last do
    add_count(key, meters[i], rises[i])
  end
end

local number = tonumber(ARGV[2])
local counted = number <= tonumber(call('GET', KEYS[1]) or '0')
local began = now - tonumber(ARGV[3]) - ON_ITS_WAY

local named = {}
for meter in string.gmatch(ARGV[4], '%S+') do
  named[#named + 1] = meter
end

local tenants = 0
local next_number = string.gmatch(ARGV[5], '%d+')
for k = 2, #KEYS, 2 do
  local erased = call('GET', KEYS[k + 1])
  local wanted = not erased or tonumber(erased) < began
  if wanted then
    tenants = tenants + 1
  end
  local meters, rises = {}, {}
  for i = 1, tonumber(next_number()) do
    meters[i] = named[tonumber(next_number())]
    rises[i] = tonumber(next_number())
  end
  if wanted and not counted then
    for first = 1, #meters, AT_ONCE do
      add_counts(KEYS[k], meters, rises, first, min(first + AT_ONCE - 1, #meters))
    end
  end
end

if not counted then
  call('SET', KEYS[1], ARGV[2], 'EX', NUMBER_KEPT)
end

return tenants
