-- Body and version of each item, two empty strings where nothing was said of it. KEYS: each item's.
local found = {}
for place, key in ipairs(KEYS) do
  local pair = redis.call('HMGET', key, 'body', 'version')
  found[place] = {pair[1] or '', pair[2] or ''}
end
return found
