-- For each lock: claim, last token, number of tokens. Needs no grace: what the store still knows lives on.
local replies = {}
for i = 2, #KEYS do
  local key, at = KEYS[i], 3 * i - 4
  local lock = read(key)
  local reply
  if is_held_by(lock, ARGV[at], ARGV[at + 1], ARGV[at + 2]) then
    if lock.ends > now then
      lock.ends = now + lock.ttl
      write(key, lock)
      reply = format('%d', lock.ttl)
    else
      reply = 'expired'
    end
  elseif lock.claim then
    reply = 'taken'
  elseif lock.epoch ~= '-' then
    reply = 'expired'
  elseif not in_grace then
    reply = 'deleted'
  else
    -- Whatever was granted before the grace is renewed once in it.
    reply = 'reset'
  end
  replies[i - 1] = reply
end
return replies
