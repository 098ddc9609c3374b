-- How many are before the claim in the queue, which it joins unless it is there. Whoever waits asks again and again, which keeps the queue.
local function enqueue(lock, claim)
  local q, w = prefix .. 'q:' .. claim.name, prefix .. 'w:' .. claim.name
  local who = ARGV[2]
  if claim.written then
    who = who .. claim.written
    lock.with_terms = true
  end
  if claim.terms.limit > 0 then
    lock.limit = claim.terms.limit
  end
  local waiter = format('%d %d ', now + claim.ttl, claim.ttl) .. who .. ' ' .. claim.rest
  local is_new = call('HSET', w, claim.id, waiter) == 1
  local ahead = not is_new and call('LPOS', q, claim.id)
  local joined = not ahead
  if joined then
    ahead = call('RPUSH', q, claim.id) - 1
  end
  if ahead == 0 or not joined then
    call('PEXPIRE', q, KEPT)
    call('PEXPIRE', w, KEPT)
  end
  if joined then
    lock.queued, lock.changed = '1', true
  end
  return ahead
end

local function step(claim)
  local key, name = claim.key, claim.name
  local lock = read(key)
  local held = find(name, lock, claim.id)
  if held and held.ends > now then
    return granted(held)
  end
  local reply
  local why, last, tokens = judge(lock, claim)
  if not why then
    reply = grant_to(lock, claim, last, tokens)
  elseif why == 'N' and claim.may_wait and lock.queued == '1' and call('HGET', prefix .. 'w:' .. name, claim.id) then
    -- It keeps its place.
    why = 'B'
  end
  if why == 'B' then
    if claim.may_wait then
      local ahead = enqueue(lock, claim)
      local ends, who = first_of(name, lock)
      reply = format('Q %d %d %d ', now, ahead, math.min(ends - now, claim.ttl / 3) + 1000) .. who
    else
      reply = refusal(lock, claim, why)
    end
  elseif why then
    if lock.queued == '1' and forget(name, claim.id) and not in_grace then
      hand_over(name, lock)
    end
    reply = refusal(lock, claim, why)
  end
  if lock.changed then
    write(key, lock)
  end
  return reply
end

local replies = claims()
for i, claim in ipairs(replies) do
  replies[i] = step(claim)
end
return replies
