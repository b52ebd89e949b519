-- Put marks on a thing; for each '1' if it is new.
-- KEYS: the thing. ARGV: seconds until all of its marks expire, then the marks.
local new = {}
for i = 2, #ARGV do
  new[#new + 1] = tostring(redis.call('SADD', KEYS[1], ARGV[i]))
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return new
