-- Write items whose version is the expected one; answers the new version of each, 0 where it was another.
-- KEYS: head, changes, ids, and each item's. ARGV: an epoch, changes kept; then id, expected version, body of each.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'version', 0)
end
local versions = {}
for place = 1, #KEYS - 3 do
  local key = KEYS[3 + place]
  local id, expected, body = ARGV[3 * place], ARGV[3 * place + 1], ARGV[3 * place + 2]
  if (redis.call('HGET', key, 'version') or '0') == expected then
    local version = redis.call('HINCRBY', KEYS[1], 'version', 1)
    redis.call('HSET', key, 'body', body, 'version', version)
    redis.call('ZADD', KEYS[3], 0, id)
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], version .. '-0', 'item_id', id, 'body', body)
    versions[place] = version
  else
    versions[place] = 0
  end
end
return versions
