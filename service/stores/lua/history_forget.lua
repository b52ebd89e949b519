-- Drop what is kept of a user; '1' if what a bundle has of the user must not come back, '0' if there is nothing to remember.
-- KEYS: purchases, forgotten, texts, others, and the log's stream where that is written too.
-- ARGV: 1 if a bundle knows the user, length of the stream, line of the log ('' for none).
-- The mark is set first: a full Redis refuses it, and then nothing has been deleted.
local known = ARGV[1] == '1' or redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[4]) > 0
if KEYS[5] and ARGV[3] ~= '' then
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[2], '*', 'record', ARGV[3])
end
if known then
  redis.call('SET', KEYS[2], redis.call('TIME')[1])
end
redis.call('DEL', KEYS[1], KEYS[3], KEYS[4])
return known and '1' or '0'
