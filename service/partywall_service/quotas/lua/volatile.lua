-- Changes quotas that live in Redis alone, several operations in order as one atomic step.
--
-- KEYS[1]    this call: a string, there when it was run already
-- KEYS[i]    as the operations name them by their place:
--              levels        a hash, by resource, of whole numbers with spaces between: used, reserved,
--                            version, the kind of period it was last counted by, its start (-1: none),
--                            how often it was refilled, and the day (since the epoch) on which the
--                            hash's life was last renewed
--              holds         a sorted set of what reservations hold, by when they expire; a member:
--                            resource, amount, how often the level had been refilled, the reservation's
--                            name
--              reservation   a hash: status (held, committed or cancelled), items (of each: resource,
--                            amount, refills), and of a settled one taken (of each: resource,
--                            amount), reply and context
--              answer        a string of three lines: fingerprint, reply, context
-- ARGV[1]    now in microseconds, or '' for this server's clock (tests give one)
-- ARGV[2]    the calendar by the caller's guess, in microseconds with spaces between: the starts of
--            this day, of the next, of this week, of this month
-- ARGV[3]    the operations in JSON, each an array: kind; places of its levels, its holds, its
--            reservation and its answer (0: none); the reservation's name; items, of each: resource,
--            kind of period (0 none, 1 day, 2 week, 3 month), limit, amount; an extra; fingerprint;
--            context, which only the caller reads; for how many milliseconds its answer is kept; and
--            whether also when it was not done. By kind:
--              look, consume, release      no extra (0)
--              reserve                     extra: microseconds until it expires
--              commit                      extra: false for all of it, or of each item: resource,
--                                          amount; items: what may be in it, whatever the amount
--              cancel                      extra: false; items likewise
--              set                         extra: the version at which it was counted, -1: any
-- returns    what became of the call ('run', 'moved': the calendar is not that of now, 'again': it was
--            run before; both changed nothing), now in microseconds; then, where it was run, of each
--            operation its reply and the context it was given with, '' unless that was another's. A
--            reply is an array, or as it is kept a line with spaces between:
--              code, now, when the reservation expires (0: none), how many states follow;
--              of each state: resource, used, reserved, version, start (-1: none), change of used;
--              by code:
--                done        nothing
--                denied      the resources without room
--                below       a resource, what is used of it
--                moved_on    the version
--                unknown     nothing
--                too_much    a resource, what is reserved of it
--                otherwise   what was committed, of each: resource, amount; in one word
--                settled     how: committed, cancelled or expired
--                other       nothing: the answer kept was to another fingerprint
--
-- Closes the races of two callers for the last unit, for one reservation, and under one idempotency
-- key: reading and changing are one step. A call that the driver sends twice, because the connection
-- broke, runs once. The arithmetic is that of book.py, and the tests hold both side by side.

local DAY = 86400000
local CALL_KEPT = 10000 -- a broken connection's call is sent again at once
local LEVELS_KEPT = 400 * DAY
local HOLDS_KEPT = 402 * DAY -- longer than levels, which must not keep what nobody gives back
local SETTLED_KEPT = 2 * DAY

local format, match, gmatch = string.format, string.match, string.gmatch
local call = redis.call

local now
if ARGV[1] ~= '' then
  now = tonumber(ARGV[1])
else
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

local day, tomorrow, week, month = match(ARGV[2], '^(%-?%d+) (%-?%d+) (%-?%d+) (%-?%d+)$')
local starts = { tonumber(day), tonumber(week), tonumber(month) }
if now < starts[1] or now >= tonumber(tomorrow) then
  return { 'moved', now }
end
if not call('SET', KEYS[1], 1, 'NX', 'PX', CALL_KEPT) then
  return { 'again', now }
end

local today = math.floor(now / 1000 / DAY)

--- @include "levels"

local function reply_of(code, book, items, deltas, expires_at)
  local words = { code, now, expires_at or 0, #items }
  for _, item in ipairs(items) do
    say_state(words, book, item, deltas and deltas[item[1]] or 0)
  end
  return words
end

local function refusal(code, ...)
  return { code, now, 0, 0, ... }
end

-- A reply as it is kept: one line.
local function line_of(words)
  local line = {}
  for place, word in ipairs(words) do
    line[place] = type(word) == 'number' and format('%.0f', word) or word
  end
  return table.concat(line, ' ')
end

-- The resources that cannot take so much more.
local function without_room(book, items)
  local denied = {}
  for _, item in ipairs(items) do
    local level = current(book, item)
    if level.used + level.reserved + item[4] > item[3] then
      denied[#denied + 1] = item[1]
    end
  end
  return denied
end

local function denial(book, items, denied)
  local words = reply_of('denied', book, items)
  for _, resource in ipairs(denied) do
    words[#words + 1] = resource
  end
  return words
end

local kinds = {}

function kinds.look(book, items)
  give_back_expired(book)
  return reply_of('done', book, items)
end

function kinds.consume(book, items)
  local denied = without_room(book, items)
  if #denied > 0 then
    return denial(book, items, denied)
  end
  local deltas = {}
  for _, item in ipairs(items) do
    use(book, item, item[4])
    deltas[item[1]] = item[4]
  end
  return reply_of('done', book, items, deltas)
end

function kinds.release(book, items)
  for _, item in ipairs(items) do
    local level = current(book, item)
    if item[4] > level.used then
      return refusal('below', item[1], level.used)
    end
  end
  for _, item in ipairs(items) do
    use(book, item, -item[4])
  end
  return reply_of('done', book, items)
end

function kinds.set(book, items, version)
  local item = items[1]
  local level = current(book, item)
  if version >= 0 and version ~= level.version then
    return refusal('moved_on', level.version)
  end
  local delta = item[4] - level.used
  if delta ~= 0 then
    use(book, item, delta)
  end
  return reply_of('done', book, items, { [item[1]] = delta })
end

function kinds.reserve(book, items, lasts, record, name)
  local denied = without_room(book, items)
  if #denied > 0 then
    return denial(book, items, denied)
  end
  local expires_at = now + lasts
  local held = {}
  for place, item in ipairs(items) do
    held[place] = hold(book, item, name, expires_at)
  end
  call('HSET', record, 'status', 'held', 'items', table.concat(held, ' '))
  call('PEXPIRE', record, math.floor(lasts / 1000) + SETTLED_KEPT)
  return reply_of('done', book, items, nil, expires_at)
end

--- @include "settle"

local function answer_to(operation)
  local kind, levels, holds, record, answer, name, items, extra = unpack(operation, 1, 8)
  local fingerprint, context = operation[9], operation[10]
  local kept = answer > 0 and call('GET', KEYS[answer])
  if kept then
    local first, reply, with = match(kept, '^([^\n]*)\n([^\n]*)\n(.*)$')
    if first ~= fingerprint then
      return refusal('other'), ''
    end
    return reply, with
  end
  local book = book_of(KEYS[levels], KEYS[holds])
  local reply, with = kinds[kind](book, items, extra, KEYS[record], name, context)
  local line = type(reply) == 'string' and reply or answer > 0 and line_of(reply)
  if answer > 0 and (operation[12] or match(line, '^done ')) then
    local text = fingerprint .. '\n' .. line .. '\n' .. (with or context)
    call('SET', KEYS[answer], text, 'PX', operation[11])
  end
  return reply, with or ''
end

local replies = { 'run', now }
for place, operation in ipairs(cjson.decode(ARGV[3])) do
  replies[place * 2 + 1], replies[place * 2 + 2] = answer_to(operation)
end
write_levels()
return replies
