-- The last entries, oldest first; nil for a user of whom nothing is known, empty for a forgotten one.
-- KEYS: history, forgotten. ARGV: how many, at least 1.
local entries = redis.call('LRANGE', KEYS[1], -tonumber(ARGV[1]), -1)
if #entries == 0 and redis.call('EXISTS', KEYS[2]) == 0 then
  return false
end
return entries
