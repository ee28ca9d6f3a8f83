-- The end of a reservation: committed, which consumes; or cancelled, which gives everything back.
--
-- The script that includes this includes levels.lua before, and says `kinds`, `refusal`, `reply_of`,
-- SETTLED_KEPT, in milliseconds, and what is short for Redis and Lua.

-- What is consumed: of what is named, or of all that is held; by resource, and in order.
local function taken_of(status, named, held)
  local taken, order = {}, {}
  if status == 'committed' then
    for _, pair in ipairs(named or held) do
      taken[pair[1]] = pair[2]
      order[#order + 1] = format('%s %.0f', pair[1], pair[2])
    end
  end
  return taken, order
end

local function is_same(taken, words)
  local others = 0
  for resource, amount in gmatch(words, '(%S+) (%d+)') do
    if taken[resource] ~= tonumber(amount) then
      return false
    end
    others = others + 1
  end
  for _ in pairs(taken) do
    others = others - 1
  end
  return others == 0
end

local function member_of(one, name)
  return format('%s %.0f %.0f %s', one[1], one[2], one[3], name)
end

local function give_back(book, one, name)
  if call('ZREM', book.holds, member_of(one, name)) == 1 then
    unhold(book, one[1], one[2], one[3])
  end
end

-- Gives back each item, and consumes what is taken of it.
local function consume_held(book, held, mine, taken, name)
  local deltas = {}
  for place, one in ipairs(held) do
    give_back(book, one, name)
    local amount = taken[one[1]]
    -- What was reserved in an earlier period counted there, and that one is over.
    if amount and current(book, mine[place]).refills == one[3] then
      use(book, mine[place], amount)
      deltas[one[1]] = amount
    end
  end
  return deltas
end

-- Whether it was given back, which it stays whatever the clock says later; or is to be now.
local function has_expired(book, held, name)
  give_back_expired(book)
  local expires_at = call('ZSCORE', book.holds, member_of(held[1], name))
  if expires_at and tonumber(expires_at) > now then
    return false
  end
  for _, one in ipairs(held) do
    give_back(book, one, name)
  end
  return true
end

local function settle(as, book, items, named, record, name, context)
  local kept = call('HMGET', record, 'status', 'items', 'taken', 'reply', 'context')
  local status = kept[1]
  if not status then
    return refusal('unknown')
  end
  local terms, amounts, held, mine = {}, {}, {}, {}
  for _, item in ipairs(items) do
    terms[item[1]] = item
  end
  for resource, amount, refills in gmatch(kept[2], '(%S+) (%d+) (%d+)') do
    amounts[resource] = tonumber(amount)
    held[#held + 1] = { resource, tonumber(amount), tonumber(refills) }
    mine[#mine + 1] = terms[resource] or { resource, 0 } -- to what no tier names, nothing applies
  end
  local taken, order = taken_of(as, named, held)
  for _, pair in ipairs(as == 'committed' and named or {}) do
    if pair[2] > (amounts[pair[1]] or 0) then
      return refusal('too_much', pair[1], amounts[pair[1]] or 0)
    end
  end
  if status == as then
    if is_same(taken, kept[3]) then
      return kept[4], kept[5]
    end
    return refusal('otherwise', kept[3])
  end
  if status == 'held' and has_expired(book, held, name) then
    status = 'expired'
  end
  if status == 'expired' and as == 'cancelled' then
    return reply_of('done', book, mine)
  end
  if status ~= 'held' then
    return refusal('settled', status)
  end
  local deltas = consume_held(book, held, mine, taken, name)
  local reply = reply_of('done', book, mine, deltas)
  call('HSET', record, 'status', as, 'taken', table.concat(order, ' '))
  call('HSET', record, 'reply', line_of(reply), 'context', context)
  call('PEXPIRE', record, SETTLED_KEPT)
  return reply
end

function kinds.commit(...)
  return settle('committed', ...)
end

function kinds.cancel(...)
  return settle('cancelled', ...)
end
