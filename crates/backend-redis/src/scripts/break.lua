-- One lock: the claim that loses it, or nothing for all who hold it. It goes to whoever is next.
local key, claim = KEYS[2], ARGV[2]
local name, lock = name_of(key), read(key)
local count = 0
reap(name, lock)
for _, hold in ipairs(holds_of(name, lock)) do
  if claim == '' or hold.claim == claim then
    tell(hold.instance, 'b ' .. hold.claim .. ' ' .. name)
    remove(name, lock, hold)
    count = count + 1
  end
end
if lock.changed then
  if lock.kind == '-' and count > 0 then
    lock.kind = 'B'
  end
  settle(key, name, lock)
end
return { format('%d', count) }
