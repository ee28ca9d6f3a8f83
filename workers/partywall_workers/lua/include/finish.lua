-- The end of a job, however it comes.
local aborts = nil

-- Takes a job away from the worker that ran it.
local function vacate(tenant, id)
  redis.call('ZREM', one_of('leases'), tenant.id .. ':' .. id)
  redis.call('DEL', in_progress_key(tenant.id, id))
  local gone = redis.call('ZREM', of('running', tenant.id), id)
  if tenant.running then tenant.running = tenant.running - gone end
end

-- What somebody wanted of a job that has ended, nobody shall do to its next namesake.
local function forget_abort(tenant, id)
  if aborts == nil then aborts = redis.call('EXISTS', ABORT) == 1 end
  if aborts then redis.call('ZREM', ABORT, arq_id(tenant.id, id)) end
end

-- status: how it ended. had_error: whether its record has one. result: as arq has it, or ''. keep:
-- milliseconds it is kept; 0: not at all. owed: quota items to give back, or ''. The caller has taken
-- it out of where it waited or ran, and tidies its tenant afterwards.
local function finish(tenant, id, status, keep, result, error, traceback, owed, had_error)
  local key = job_key(tenant.id, id)
  tenant.ended = (tenant.ended or 0) + 1
  if owed ~= '' then
    redis.call('LPUSH', one_of('owed'), owed)
    -- If it is revived, it takes them anew, by a key that is not yet used.
    redis.call('HDEL', key, 'consumed', 'ran')
    redis.call('HINCRBY', key, 'refusals', 1)
  end
  redis.call('ZREM', Q, arq_id(tenant.id, id))
  forget_abort(tenant, id)
  if keep == 0 then
    redis.call('DEL', key, payload_key(tenant.id, id))
    redis.call('ZREM', of('all', tenant.id), id)
    count(tenant, status)
    return
  end
  redis.call('HSET', key, 'status', status, 'finished_at', whole(now))
  if error ~= '' or had_error then
    redis.call('HSET', key, 'error', error, 'traceback', traceback)
    redis.call('HDEL', key, 'owed')
  end
  redis.call('PEXPIRE', key, whole(keep))
  redis.call('ZADD', of('kept', tenant.id), whole(now + keep), id)
  if result ~= '' then redis.call('SET', result_key(tenant.id, id), result, 'PX', whole(keep)) end
  if status == 'dead' then
    count_own(tenant, status)
    redis.call('PEXPIRE', payload_key(tenant.id, id), whole(keep)) -- to be revived with
    redis.call('ZADD', of('dead', tenant.id), whole(now + keep), id)
    redis.call('PEXPIRE', of('dead', tenant.id), whole(keep))
  else
    count(tenant, status)
    redis.call('DEL', payload_key(tenant.id, id))
  end
end

-- After jobs of a tenant have ended: forgets those whose time is over; where none is left unfinished,
-- its lists end with what they list.
local function tidy(tenant)
  local id = tenant.id
  local past = redis.call('ZRANGEBYSCORE', of('kept', id), '-inf', whole(now), 'LIMIT', 0, 100)
  if #past > 0 then
    redis.call('ZREM', of('kept', id), unpack(past))
    redis.call('ZREM', of('dead', id), unpack(past))
    redis.call('ZREM', of('all', id), unpack(past))
  end
  if not tenant.ended then return end
  local left = tonumber(redis.call('ZINCRBY', one_of('busy'), -tenant.ended, id))
  tenant.ended = nil
  if left > 0 then return end
  redis.call('ZREM', one_of('busy'), id)
  local last = redis.call('ZRANGE', of('kept', id), -1, -1, 'WITHSCORES')
  if last[2] then
    redis.call('PEXPIREAT', of('kept', id), last[2])
    redis.call('PEXPIREAT', of('all', id), last[2])
  else
    redis.call('DEL', of('all', id))
  end
  if not tenant.paused then redis.call('EXPIRE', of('tenant', id), DAY) end
end

-- A tenant that had nothing to do and has again.
local function revive_lists(tenant)
  for _, kind in ipairs({'all', 'kept', 'tenant'}) do redis.call('PERSIST', of(kind, tenant.id)) end
end
