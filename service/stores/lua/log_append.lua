-- Add lines to the log; how many it holds then.
-- KEYS: stream. ARGV: length of the stream, then the lines.
for i = 2, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'record', ARGV[i])
end
return redis.call('XLEN', KEYS[1])
