-- One lock: the claim whose holder is asked to give it back, or nothing for all. How many were reached.
local key, claim = KEYS[2], ARGV[2]
local name, count = name_of(key), 0
for _, hold in ipairs(holds_of(name, read(key))) do
  if (claim == '' or hold.claim == claim) and tell(hold.instance, 'a ' .. hold.claim .. ' ' .. name) > 0 then
    count = count + 1
  end
end
return { format('%d', count) }
