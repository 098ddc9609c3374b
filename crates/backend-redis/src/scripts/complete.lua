-- One lock: claim, last token, number of tokens. What it was taken for is done.
local key = KEYS[2]
local name, lock = name_of(key), read(key)
local hold = find(name, lock, ARGV[2])
if not is_same(hold, ARGV[3], ARGV[4]) then
  return { '0' }
end
local was_held = hold.ends > now
if was_held then
  local at = tonumber(hold.at)
  -- Without terms only the second is known.
  if hold.weight == '0' then
    at = math.min(at + 1000000, now)
  end
  lock.completed = math.max(lock.completed, at)
end
remove(name, lock, hold)
settle(key, name, lock)
return { was_held and '1' or '0' }
