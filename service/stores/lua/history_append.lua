-- Put purchases where their timestamps belong; for each '1', or '0' when its entry is already there.
-- KEYS: purchases, forgotten, texts. ARGV: cap, ttl in seconds, then digest, timestamp and item of each, in threes.
-- Every write is one that a full or read-only Redis refuses, so the first of them does before anything has changed.
local purchases = KEYS[1]
local entries = redis.call('LRANGE', purchases, 0, -1)
local seen, times = {}, {}
for place, entry in ipairs(entries) do
  local digest, timestamp = string.match(entry, '^([^:]*):([^:]*):')
  seen[digest], times[place] = true, tonumber(timestamp)
end
local recorded, changed = {}, false
for i = 3, #ARGV, 3 do
  local digest, timestamp = ARGV[i], tonumber(ARGV[i + 1])
  if seen[digest] then
    recorded[#recorded + 1] = '0'
  else
    local entry = digest .. ':' .. ARGV[i + 1] .. ':' .. ARGV[i + 2]
    local place = #entries
    while place > 0 and times[place] > timestamp do
      place = place - 1
    end
    if place == #entries then
      redis.call('RPUSH', purchases, entry)
    elseif place == 0 then
      redis.call('LPUSH', purchases, entry)
    else
      redis.call('LINSERT', purchases, 'AFTER', entries[place], entry) -- entries differ: each has its digest
    end
    table.insert(entries, place + 1, entry)
    table.insert(times, place + 1, timestamp)
    seen[digest], changed = true, true
    recorded[#recorded + 1] = '1'
  end
end
if changed then
  redis.call('LTRIM', purchases, -tonumber(ARGV[1]), -1)
  redis.call('EXPIRE', purchases, ARGV[2])
end
return recorded
