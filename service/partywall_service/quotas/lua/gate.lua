-- Remembers levels for a moment, and tells of them, several in order as one atomic step.
--
-- KEYS[i]    a level: a string, its version, a space, then its text, which only the asker reads
-- ARGV[i]    what about KEYS[i]:
--              ''                              tell its text
--              'forget'                        forget it
--              milliseconds, version, text     with spaces between: remember it for so long, unless a
--                                              newer one is remembered
-- returns    this server's clock, in seconds and in microseconds of the second; then the text of each
--            level asked for, in order, or nil
--
-- Closes the race of two sidecars whose answers from PostgreSQL overtake each other on their way here:
-- comparing versions and writing are one step, so the older never replaces the newer.

local call = redis.call

local time = call('TIME')
local reply = { tonumber(time[1]), tonumber(time[2]) }

for place, what in ipairs(ARGV) do
  local key = KEYS[place]
  if what == '' then
    local kept = call('GET', key)
    reply[#reply + 1] = kept and string.match(kept, '^%d+ (.*)$') or false
  elseif what == 'forget' then
    call('DEL', key)
  else
    local life, level = string.match(what, '^(%d+) (.*)$')
    local kept = call('GET', key)
    local newer = kept and tonumber(string.match(kept, '^%d+'))
    if not newer or newer <= tonumber(string.match(level, '^%d+')) then
      call('SET', key, level, 'PX', life)
    end
  end
end

return reply
