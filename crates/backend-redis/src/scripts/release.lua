local replies = {}
for i = 2, #KEYS do
  local key, at = KEYS[i], 3 * i - 4
  local lock = read(key)
  local reply = '0'
  if is_held_by(lock, ARGV[at], ARGV[at + 1], ARGV[at + 2]) then
    if lock.ends > now then
      reply = '1'
    end
    set_free(key, lock)
  end
  replies[i - 1] = reply
end
return replies
