-- The end of a job, however it comes.

-- Forgets finished jobs whose time is over, and lets lists end with what they list.
local function tidy(tenant)
  local id = tenant.id
  local past = redis.call('ZRANGEBYSCORE', of('kept', id), '-inf', whole(now), 'LIMIT', 0, 20)
  if #past > 0 then
    redis.call('ZREM', of('kept', id), unpack(past))
    redis.call('ZREM', of('dead', id), unpack(past))
    redis.call('ZREM', of('all', id), unpack(past))
  end
  local last = redis.call('ZRANGE', of('kept', id), -1, -1, 'WITHSCORES')
  if last[2] then redis.call('PEXPIREAT', of('kept', id), last[2]) end
  if redis.call('EXISTS', of('dead', id)) == 1 then redis.call('PEXPIREAT', of('dead', id), last[2]) end
  if not redis.call('ZSCORE', one_of('busy'), id) then
    if last[2] then
      redis.call('PEXPIREAT', of('all', id), last[2])
    else
      redis.call('DEL', of('all', id))
    end
    if not tenant.paused then redis.call('EXPIRE', of('tenant', id), DAY) end
  end
end

-- status: how it ended. result: as arq has it, or ''. keep: milliseconds it is kept; 0: not at all.
-- owed: quota items to give back, or ''. The caller has taken it out of where it waited or ran, and
-- tidies its tenant afterwards.
local function finish(tenant, id, status, keep, result, error, traceback, owed)
  local key = job_key(tenant.id, id)
  if owed ~= '' then redis.call('LPUSH', one_of('owed'), owed) end
  redis.call('ZREM', Q, arq_id(tenant.id, id))
  redis.call('ZREM', ABORT, arq_id(tenant.id, id))
  count(tenant, status)
  if redis.call('ZINCRBY', one_of('busy'), -1, tenant.id) == '0' then
    redis.call('ZREM', one_of('busy'), tenant.id)
  end
  if keep == 0 then
    redis.call('DEL', key, payload_key(tenant.id, id))
    redis.call('ZREM', of('all', tenant.id), id)
    return
  end
  redis.call('HSET', key, 'status', status, 'finished_at', whole(now), 'error', error,
    'traceback', traceback)
  redis.call('HDEL', key, 'owed')
  redis.call('PEXPIRE', key, whole(keep))
  redis.call('ZADD', of('kept', tenant.id), whole(now + keep), id)
  if result ~= '' then redis.call('SET', result_key(tenant.id, id), result, 'PX', whole(keep)) end
  if status == 'dead' then
    redis.call('PEXPIRE', payload_key(tenant.id, id), whole(keep)) -- to be revived with
    redis.call('ZADD', of('dead', tenant.id), whole(now + keep), id)
  else
    redis.call('DEL', payload_key(tenant.id, id))
  end
end

-- Takes a job away from the worker that ran it.
local function vacate(tenant, id)
  redis.call('ZREM', one_of('leases'), tenant.id .. ':' .. id)
  redis.call('DEL', in_progress_key(tenant.id, id))
  local running = running_of(tenant)
  tenant.running = running - redis.call('ZREM', of('running', tenant.id), id)
end
