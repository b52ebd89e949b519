-- The last entries in the order of their timestamps, and '1' for a user who was forgotten.
-- KEYS: purchases, forgotten, texts, others. ARGV: how many, at least 1.
return {redis.call('LRANGE', KEYS[1], -tonumber(ARGV[1]), -1), tostring(redis.call('EXISTS', KEYS[2]))}
