-- Write revocations, and move the mark on if it stood right before them.
-- KEYS: the mark, the revocation marks. ARGV: these revocations' number, then for each its end in milliseconds.
-- A mark further back has missed others: it stays, and whoever knows of those does not believe it.
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], 1, 'PXAT', ARGV[i])
end
local mark = tonumber(redis.call('GET', KEYS[1]) or nil)
if mark and mark == tonumber(ARGV[1]) - 1 then
  redis.call('SET', KEYS[1], ARGV[1])
end
return mark
