-- Renews leases.
--
-- KEYS[1]  the queue
-- ARGV[1]  now in milliseconds, or ''
-- ARGV[2]  lease in milliseconds, from now
-- ARGV[3..] for each lease 2: 'tenant:id', fence
-- returns  for each 1; 2: renewed, and somebody wants the job cancelled; 0: lost
--
-- One step, so that a lease which has been taken back in between is not made alive again.
--- @include "keys"
--- @include "clock"

local deadline = whole(now + tonumber(ARGV[2]))
local answers = {}
for at = 3, #ARGV, 2 do
  local id, job = parts(ARGV[at])
  local v = redis.call('HMGET', job_key(id, job), 'status', 'fence', 'cancel')
  local answer = 0
  if v[1] == 'running' and v[2] == ARGV[at + 1] then
    redis.call('ZADD', of('running', id), deadline, job)
    redis.call('ZADD', one_of('leases'), deadline, ARGV[at])
    answer = v[3] and 2 or 1
  end
  answers[#answers + 1] = answer
end
return answers
