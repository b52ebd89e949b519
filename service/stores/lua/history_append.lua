-- Add one interaction behind the others; 0 when its entry is already there.
-- KEYS: history, forgotten. ARGV: entry, cap, ttl in seconds, then the entries of the base history, oldest first.
-- RPUSH is the first write, so that a full or read-only Redis refuses before anything has changed.
local history, forgotten = KEYS[1], KEYS[2]
if redis.call('LPOS', history, ARGV[1]) then
  return 0
end
if #ARGV > 3 and redis.call('EXISTS', history, forgotten) == 0 then
  for i = 4, #ARGV do
    redis.call('RPUSH', history, ARGV[i])
  end
end
redis.call('RPUSH', history, ARGV[1])
redis.call('LTRIM', history, -tonumber(ARGV[2]), -1)
redis.call('EXPIRE', history, ARGV[3])
return 1
