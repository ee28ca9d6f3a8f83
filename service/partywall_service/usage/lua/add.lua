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

local floor = math.floor
local call = redis.call

local now
if ARGV[1] ~= '' then
  now = tonumber(ARGV[1])
else
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

--- @include "partywall_service.engine/usage"

local number = tonumber(ARGV[2])
local counted = number <= tonumber(call('GET', KEYS[1]) or '0')
local began = now - tonumber(ARGV[3]) - ON_ITS_WAY

local meters = {}
for meter in string.gmatch(ARGV[4], '%S+') do
  meters[#meters + 1] = meter
end

local tenants = 0
local next_number = string.gmatch(ARGV[5], '%d+')
for k = 2, #KEYS, 2 do
  local erased = call('GET', KEYS[k + 1])
  local wanted = not erased or tonumber(erased) < began
  if wanted then
    tenants = tenants + 1
  end
  for _ = 1, tonumber(next_number()) do
    local meter, n = meters[tonumber(next_number())], tonumber(next_number())
    if wanted and not counted then
      add_count(KEYS[k], meter, n)
    end
  end
end

if not counted then
  call('SET', KEYS[1], ARGV[2], 'EX', NUMBER_KEPT)
end

return tenants
