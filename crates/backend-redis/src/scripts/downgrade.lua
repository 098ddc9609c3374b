-- One lock: claim, last token, number of tokens. Who held alone holds with other readers from now on.
local key = KEYS[2]
local name, lock = name_of(key), read(key)
local hold = find(name, lock, ARGV[2])
if not is_same(hold, ARGV[3], ARGV[4]) or hold.ends <= now or lock.kind == 'P' then
  return { '0' }
end
if lock.only then
  lock.only, hold.weight = nil, '1'
  add(name, lock, 'S', hold)
  settle(key, name, lock)
end
return { '1' }
