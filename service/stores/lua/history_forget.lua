-- Drop a user's history and remember that it must not come back from a bundle.
-- KEYS: history, forgotten. The mark is set first: a full Redis refuses it, and then nothing has been deleted.
redis.call('SET', KEYS[2], redis.call('TIME')[1])
redis.call('DEL', KEYS[1])
return 1
