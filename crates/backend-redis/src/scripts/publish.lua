-- One lock: claim, last token, number of tokens, value.
local key = KEYS[2]
local name, lock = name_of(key), read(key)
local hold = find(name, lock, ARGV[2])
if not is_same(hold, ARGV[3], ARGV[4]) or hold.ends <= now then
  return { '0' }
end
local value = ARGV[5]
if hold.length ~= '-' then
  hold.rest = sub(hold.rest, hold.length + 1)
end
hold.length, hold.rest = format('%d', #value), value .. hold.rest
if lock.only then
  hold.weight = '1'
  write(key, lock)
else
  call('HSET', prefix .. 'h:' .. name, hold.claim, encode(hold))
end
tell_watchers(name)
return { '1' }
