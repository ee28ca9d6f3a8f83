-- The levels of a tenant's resources, and what its reservations hold of them.
--
-- The script that includes this says `now`, in microseconds; `today`, in days since the epoch; the
-- `starts` of the calendar's periods by kind; LEVELS_KEPT and HOLDS_KEPT, in milliseconds; and what is
-- short for Redis and Lua: `call`, `format`, `match`. An item is an array: resource, kind of period,
-- limit, amount.

local MOST_GIVEN_BACK = 5000

local books = {} -- by the key of their levels

local function book_of(levels, holds)
  local book = books[levels]
  if not book then
    book = { key = levels, holds = holds, levels = {}, has_given_back = false }
    books[levels] = book
  end
  return book
end

-- A level as it is kept. Read once in a call however many operations name it, written once after.
local function level_of(book, resource)
  local level = book.levels[resource]
  if not level then
    level = { used = 0, reserved = 0, version = 0, per = 0, start = -1, refills = 0, renewed = -1 }
    local kept = call('HGET', book.key, resource)
    if kept then
      local used, reserved, version, per, start, refills, renewed =
        match(kept, '^(%d+) (%d+) (%d+) (%d) (%-?%d+) (%d+) (%-?%d+)$')
      level.used, level.reserved, level.version = tonumber(used), tonumber(reserved), tonumber(version)
      level.per, level.start, level.refills = tonumber(per), tonumber(start), tonumber(refills)
      level.renewed = tonumber(renewed)
    end
    book.levels[resource] = level
  end
  return level
end

local function touch(level)
  level.version = level.version + 1
  level.changed = true
end

-- What was held before the level was refilled counts no more.
local function unhold(book, resource, amount, refills)
  local level = level_of(book, resource)
  if refills == level.refills then
    level.reserved = math.max(0, level.reserved - amount) -- less only where the server lost levels
    touch(level)
  end
end

-- Gives back what expired reservations hold, once in a call. A tenant that let very many expire at
-- once must not hold all others up: what is over the most waits for the next call.
local function give_back_expired(book)
  if book.has_given_back then
    return
  end
  book.has_given_back = true
  local upto = format('%.0f', now)
  local due = call('ZRANGEBYSCORE', book.holds, '-inf', upto, 'LIMIT', 0, MOST_GIVEN_BACK)
  for _, member in ipairs(due) do
    local resource, amount, refills = match(member, '^(%S+) (%d+) (%d+) ')
    unhold(book, resource, tonumber(amount), tonumber(refills))
  end
  if #due > 0 then
    call('ZREM', book.holds, unpack(due))
  end
end

-- Whether the level was counted in another period than this one. A clock that was set back must not
-- refill a second time.
local function has_ended(level, per)
  if per == 0 then
    return false
  end
  return level.per ~= per or level.start == -1 or starts[per] > level.start
end

-- The level of an item, refilled if its period has ended.
local function current(book, item)
  local level = level_of(book, item[1])
  if level.reserved > 0 then -- most often there is nothing to look for
    give_back_expired(book)
  end
  local per = item[2]
  if has_ended(level, per) then
    if level.used > 0 or level.reserved > 0 then
      touch(level)
    end
    level.used, level.reserved = 0, 0
    level.per, level.start, level.refills = per, starts[per], level.refills + 1
  end
  return level
end

local function use(book, item, delta)
  local level = level_of(book, item[1])
  level.used = level.used + delta
  level.per = item[2]
  touch(level)
end

-- What a reservation holds of one resource, as it is kept.
local function hold(book, item, name, expires_at)
  local level = level_of(book, item[1])
  level.reserved = level.reserved + item[4]
  level.per = item[2]
  touch(level)
  local held = format('%s %.0f %.0f', item[1], item[4], level.refills)
  call('ZADD', book.holds, format('%.0f', expires_at), held .. ' ' .. name)
  call('PEXPIRE', book.holds, HOLDS_KEPT)
  return held
end

-- Adds a state to a reply; of a level whose period has ended, as it will be refilled.
local function say_state(words, book, item, delta)
  local per = item[2]
  local level = level_of(book, item[1])
  local used, reserved, version, start = level.used, level.reserved, level.version, level.start
  if has_ended(level, per) then
    version = (used > 0 or reserved > 0) and version + 1 or version
    used, reserved, start = 0, 0, starts[per]
  end
  local at = #words
  words[at + 1], words[at + 2], words[at + 3] = item[1], used, reserved
  words[at + 4], words[at + 5], words[at + 6] = version, start, delta
end

local function write_levels()
  for key, book in pairs(books) do
    local fields, renews = {}, false
    for resource, level in pairs(book.levels) do
      if level.changed then
        renews = renews or level.renewed ~= today
        fields[#fields + 1] = resource
        fields[#fields + 1] = format(
          '%.0f %.0f %.0f %d %.0f %.0f %.0f',
          level.used, level.reserved, level.version, level.per, level.start, level.refills, today
        )
      end
    end
    if #fields > 0 then
      call('HSET', key, unpack(fields))
    end
    if renews then
      call('PEXPIRE', key, LEVELS_KEPT)
    end
  end
end
