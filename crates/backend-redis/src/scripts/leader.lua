-- One lock: who holds it with a value, if anybody.
local key = KEYS[2]
local holds = holds_of(name_of(key), read(key))
for i = #holds, 1, -1 do
  local hold = holds[i]
  if hold.length ~= '-' then
    local value = sub(hold.rest, 1, hold.length)
    return { value, format('%d', hold.last - hold.tokens + 1), format('%d', hold.ends - now), whose(hold) }
  end
end
return {}
