-- For each lock: claim, last token, number of tokens. Needs no grace: what the store still knows lives on.
local replies = {}
for i = 2, #KEYS do
  local key, at = KEYS[i], 3 * i - 4
  local name, lock = name_of(key), read(key)
  local hold, reply = find(name, lock, ARGV[at]), nil
  if is_same(hold, ARGV[at + 1], ARGV[at + 2]) then
    if hold.ends > now then
      reply = hold.ttl
      hold.ends = now + hold.ttl
      if lock.only then
        write(key, lock)
      else
        call('ZADD', prefix .. 'x:' .. name, format('%d', hold.ends), hold.claim)
        call('PEXPIRE', prefix .. 'x:' .. name, KEPT)
        call('PEXPIRE', prefix .. 'h:' .. name, KEPT)
        call('PEXPIRE', key, KEPT, 'GT')
      end
    else
      reply = 'expired'
    end
  elseif lock.kind == 'B' then
    reply = 'deleted'
  elseif lock.only or lock.used > 0 then
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
