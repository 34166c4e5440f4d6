-- Set the mark after a rebuild, unless the cache was emptied while it was rebuilt: then the rebuild's own key is gone.
-- KEYS: the mark, the rebuild's key. ARGV: the number up to which the rebuild is complete. Returns 1 when marked.
if redis.call('DEL', KEYS[2]) == 0 then
  return 0
end
local mark = tonumber(redis.call('GET', KEYS[1]) or nil)
if not mark or mark < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 1
