-- A lock's record and its queue.
-- How long a lock that was handed over waits for its new holder to confirm that.
local CONFIRMED_WITHIN = 2000000
-- How many waiters are looked at in one step at most.
local LOOKED_AT = 64

local prefix = sub(KEYS[1], 1, -6)

local function name_of(key)
  return sub(key, #prefix + 3)
end

-- A lock that is free has no claim.
local function read(key)
  local value = call('GET', key)
  if not value then
    return { counter = '0', epoch = '-', queued = '0' }
  end
  local counter, written, queued, rest = match(value, '^(%d+) (%x+) (%d)(.*)$')
  if not counter then
    error('the record ' .. key .. ' was not written by locks')
  end
  local lock = { counter = counter, epoch = written, queued = queued }
  if rest ~= '' then
    local claim, tokens, ends, ttl, instance, since, holder =
      match(rest, '^ (%x+) (%d+) (%d+) (%d+) (%x+) (%d+) (.*)$')
    lock.claim, lock.tokens, lock.ends, lock.ttl = claim, tokens, tonumber(ends), tonumber(ttl)
    lock.instance, lock.since, lock.holder = instance, since, holder
  end
  return lock
end

local function write(key, lock)
  local value = lock.counter .. ' ' .. lock.epoch .. ' ' .. lock.queued
  if lock.claim then
    local ends, ttl = format('%d', lock.ends), format('%d', lock.ttl)
    value = value .. ' ' .. lock.claim .. ' ' .. lock.tokens .. ' ' .. ends .. ' ' .. ttl .. ' ' .. lock.instance
      .. ' ' .. lock.since .. ' ' .. lock.holder
  end
  if lock.epoch ~= '-' then
    call('SET', key, value, 'PX', KEPT)
  end
end

-- Writes tokens and holder into the record. False once the tokens are used up.
local function grant(lock, claim, instance, ttl, life, holder)
  local last, tokens = next_tokens(tonumber(lock.counter), lock.epoch)
  if not last then
    return false
  end
  lock.counter, lock.epoch, lock.tokens = last, epoch, format('%d', tokens)
  lock.claim, lock.instance, lock.holder, lock.since = claim, instance, holder, clock[1]
  lock.ttl, lock.ends = ttl, now + life
  return true
end

-- Whether this very grant holds the lock, tokens included: a claim that expired unseen may have been granted again.
local function is_held_by(lock, claim, last, tokens)
  return lock.claim == claim and lock.counter == last and lock.tokens == tokens
end

local function tell(instance, message)
  return call('PUBLISH', prefix .. 'e:' .. instance, message)
end

local function forget(name, claim)
  if call('HDEL', prefix .. 'w:' .. name, claim) == 1 then
    call('LREM', prefix .. 'q:' .. name, 1, claim)
  end
end

-- Gives a free lock to the first waiter that is alive and listens. A waiter that is alive and does not listen keeps its place: it asks when
-- it is back. Stops at `me`, who asks now. True if somebody was granted.
local function hand_over(name, lock, me)
  local q, w = prefix .. 'q:' .. name, prefix .. 'w:' .. name
  local kept, done = {}, false
  for _ = 1, LOOKED_AT do
    local claim = call('LPOP', q)
    if not claim then
      lock.queued = #kept > 0 and '1' or '0'
      break
    end
    local gone_at, ttl, instance, holder = match(call('HGET', w, claim) or '', '^(%d+) (%d+) (%x+) (.*)$')
    if claim == me then
      kept[#kept + 1] = claim
      break
    elseif not gone_at or tonumber(gone_at) <= now then
      call('HDEL', w, claim)
    else
      local counter, written = lock.counter, lock.epoch
      ttl = tonumber(ttl)
      local life = math.min(ttl, CONFIRMED_WITHIN)
      done = grant(lock, claim, instance, ttl, life, holder)
        and tell(instance, format('g %s %s %s %d %d', claim, lock.counter, lock.tokens, life, now)) > 0
      if done then
        call('HDEL', w, claim)
        break
      end
      lock.counter, lock.epoch, lock.claim = counter, written, nil
      kept[#kept + 1] = claim
    end
  end
  for i = #kept, 1, -1 do
    call('LPUSH', q, kept[i])
    call('PEXPIRE', q, KEPT)
  end
  return done
end

-- Frees the lock if its holder's time has passed, and says so unless it is `me`, who asks now. True if it was freed.
local function reap(name, lock, me)
  if not lock.claim or lock.ends > now then
    return false
  end
  if lock.claim ~= me then
    tell(lock.instance, 'l ' .. lock.claim .. ' ' .. name)
  end
  lock.claim = nil
  return true
end

-- Takes the lock from its holder.
local function set_free(key, lock)
  lock.claim = nil
  if lock.queued == '1' and not in_grace then
    hand_over(name_of(key), lock)
  end
  write(key, lock)
end
