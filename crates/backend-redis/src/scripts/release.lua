-- For each lock: claim, last token, number of tokens.
local replies = {}
for i = 2, #KEYS do
  local key, at = KEYS[i], 3 * i - 4
  local name, lock = name_of(key), read(key)
  local hold, reply = find(name, lock, ARGV[at]), '0'
  if is_same(hold, ARGV[at + 1], ARGV[at + 2]) then
    if hold.ends > now then
      reply = '1'
    end
    remove(name, lock, hold)
    settle(key, name, lock)
  end
  replies[i - 1] = reply
end
return replies
