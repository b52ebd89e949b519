-- Put events where their timestamps belong; for each '1', or '0' when it is a repetition of one that is still known.
-- KEYS: purchases, forgotten, texts, others, and the log's stream where that is written too.
-- ARGV: cap, ttl in seconds, length of the stream, then digest, timestamp, item, 1 if it is history, and line of the log
-- of each, in fives.
-- Every write is one that a full or read-only Redis refuses, so the first of them does before anything has changed.
local purchases, others, stream = KEYS[1], KEYS[4], KEYS[5]
local entries = redis.call('LRANGE', purchases, 0, -1)
local seen, times = {}, {}
for place, entry in ipairs(entries) do
  local digest, timestamp = string.match(entry, '^([^:]*):([^:]*):')
  seen[digest], times[place] = true, tonumber(timestamp)
end
for _, digest in ipairs(redis.call('LRANGE', others, 0, -1)) do
  seen[digest] = true
end
local recorded, changed, noted = {}, false, false
for i = 4, #ARGV, 5 do
  local digest, timestamp = ARGV[i], tonumber(ARGV[i + 1])
  if seen[digest] then
    recorded[#recorded + 1] = '0'
  else
    if stream then
      redis.call('XADD', stream, 'MAXLEN', '~', ARGV[3], '*', 'record', ARGV[i + 4])
    end
    if ARGV[i + 3] == '1' then
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
      changed = true
    else
      redis.call('RPUSH', others, digest)
      noted = true
    end
    seen[digest] = true
    recorded[#recorded + 1] = '1'
  end
end
if changed then
  redis.call('LTRIM', purchases, -tonumber(ARGV[1]), -1)
  redis.call('EXPIRE', purchases, ARGV[2])
end
if noted then
  redis.call('LTRIM', others, -tonumber(ARGV[1]), -1)
  redis.call('EXPIRE', others, 86400) -- whoever repeats a request does so today
end
return recorded
