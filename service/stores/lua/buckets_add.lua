-- Add to the sums of items in buckets; how many buckets that were.
-- KEYS: the buckets. ARGV: for each bucket seconds until it expires, how many items, then value and item of each.
local at = 1
for _, key in ipairs(KEYS) do
  local ttl, count = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  for _ = 1, count do
    redis.call('ZINCRBY', key, ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  redis.call('EXPIRE', key, ttl)
end
return #KEYS
