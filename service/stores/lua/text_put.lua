-- Keep a text written for a user, unless the user was forgotten while it was being written.
-- KEYS: texts, forgotten. ARGV: field, text, seconds after which all of the user's texts expire.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
