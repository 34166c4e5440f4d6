-- Count requests and look for revocations, for a whole batch.
-- KEYS: the mark, the counters, the revocation marks. ARGV: the number of counters, then for each its window in
-- milliseconds, its limit, and how many requests want one from it.
-- Returns the mark, four numbers per counter (its count before, the previous window's count, milliseconds elapsed in
-- the window, how many were granted), and 1 or 0 per revocation mark.
-- The clock is the server's: all gateways count by one.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local counters = tonumber(ARGV[1])
local numbers = {}
for i = 1, counters do
  local key = KEYS[1 + i]
  local window, limit, wanted = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local index = math.floor(now / window)
  local elapsed = now - index * window
  local row = redis.call('HMGET', key, 'w', 'c', 'p')
  local known, current, previous = tonumber(row[1]) or -1, tonumber(row[2]) or 0, tonumber(row[3]) or 0
  local is_new = known < index
  if known > index then
    -- The clock went back (another server took over): the count stands.
    index, elapsed = known, 0
  elseif is_new then
    previous = (known == index - 1) and current or 0
    current = 0
  end
  local room = math.floor(limit - current - previous * (window - elapsed) / window)
  local granted = math.max(0, math.min(wanted, room))
  if granted > 0 then
    redis.call('HSET', key, 'w', index, 'c', current + granted, 'p', previous)
    if is_new then
      redis.call('PEXPIRE', key, 2 * window)
    end
  end
  local at = 4 * (i - 1)
  numbers[at + 1], numbers[at + 2], numbers[at + 3], numbers[at + 4] = current, previous, elapsed, granted
end
local flags = {}
for i = counters + 2, #KEYS do
  flags[#flags + 1] = redis.call('EXISTS', KEYS[i])
end
return {redis.call('GET', KEYS[1]), numbers, flags}
