-- How many are before the claim in the queue, which it joins unless it is there. Whoever waits asks again and again, which keeps the queue.
local function enqueue(name, claim, ttl, holder)
  local q, w = prefix .. 'q:' .. name, prefix .. 'w:' .. name
  local is_new = call('HSET', w, claim, format('%d %d %s %s', now + ttl, ttl, ARGV[2], holder)) == 1
  local ahead = not is_new and call('LPOS', q, claim)
  local joined = not ahead
  if joined then
    ahead = call('RPUSH', q, claim) - 1
  end
  if ahead == 0 or not joined then
    call('PEXPIRE', q, KEPT)
    call('PEXPIRE', w, KEPT)
  end
  return ahead
end

local function granted(lock)
  return format('G %s %s %d', lock.counter, lock.tokens, lock.ends - now)
end

local function step(key, claim, ttl, may_wait, holder)
  local lock = read(key)
  if lock.claim == claim and lock.ends > now then
    return granted(lock)
  end
  local name = name_of(key)
  local changed = reap(name, lock, claim)
  if not lock.claim then
    local queued = lock.queued == '1'
    if in_grace then
      if queued then
        forget(name, claim)
      end
      if changed then
        write(key, lock)
      end
      return format('R %d', sub(ARGV[1], 18, 33) - now)
    end
    if not queued or not hand_over(name, lock, claim) then
      if queued then
        forget(name, claim)
      end
      if not grant(lock, claim, ARGV[2], ttl, ttl, holder) then
        return 'T'
      end
      write(key, lock)
      return granted(lock)
    end
    changed = true
  end
  local reply
  if may_wait then
    local ahead = enqueue(name, claim, ttl, holder)
    if lock.queued == '0' then
      lock.queued, changed = '1', true
    end
    local check_in = math.min(lock.ends - now, ttl / 3) + 1000
    reply = format('Q %d %d %d %s %s', now, ahead, check_in, lock.since, lock.holder)
  else
    reply = format('B %s %s', lock.since, lock.holder)
  end
  if changed then
    write(key, lock)
  end
  return reply
end

local replies = {}
for i = 2, #KEYS do
  local at = 4 * i - 5
  replies[i - 1] = step(KEYS[i], ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2] == '1', ARGV[at + 3])
end
return replies
