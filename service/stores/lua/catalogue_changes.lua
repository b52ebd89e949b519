-- Epoch, newest version, and at most n changes behind a version, oldest first. KEYS: head, changes. ARGV: version, n.
local head = redis.call('HMGET', KEYS[1], 'epoch', 'version')
local entries = {}
if tonumber(ARGV[2]) > 0 then
  entries = redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])
end
return {head[1] or '', head[2] or '0', entries}
