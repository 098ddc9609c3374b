-- Opens the epoch of the store's present incarnation. KEYS[1] is the epoch record; ARGV: id of a new epoch, largest ttl, run, promoted at,
-- and what to do: 'grace' begins a new epoch with one, 'off' without, 'new' ends one, since an operator says that the store is new.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local fresh, cap, run, promoted, means = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local id, no_grants_before, written_cap, written_run, written_promoted =
  string.match(redis.call('GET', KEYS[1]) or '', '^(%x+) (%d+) (%d+) (%x+) (-?%d+)$')
if id and written_cap ~= cap then
  return { 'C', written_cap }
end
-- A primary forgets when it was promoted once the first replica comes: that is no new incarnation.
local same = id and written_run == run and (written_promoted == promoted or promoted == '-1')
if same then
  promoted = written_promoted
else
  id, no_grants_before = fresh, now
  if means == 'grace' then
    no_grants_before = now + cap
  end
end
no_grants_before = tonumber(no_grants_before)
if means == 'new' then
  no_grants_before = math.min(no_grants_before, now)
end
local record = table.concat({ id, string.format('%016d', no_grants_before), cap, run, promoted }, ' ')
if not same or means == 'new' then
  redis.call('SET', KEYS[1], record)
end
return { 'K', record }
