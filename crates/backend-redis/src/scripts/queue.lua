-- Who waits for a lock, and its handing over.
-- How long a lock that was handed over waits for its new holder to confirm that.
local CONFIRMED_WITHIN = 2000000
-- How many waiters are looked at in one step at most.
local LOOKED_AT = 1024

local PLAIN = { mode = 'X', weight = '0', limit = 0, min_hold = 0, once_per = 0, length = '-' }

local function terms_of(text)
  if text == '' then
    return PLAIN
  end
  local mode, weight, limit, min_hold, once_per, length = match(text, '^/(%a),(%d+),(%d+),(%d+),(%d+),(%S+)$')
  return {
    mode = mode, weight = weight, limit = tonumber(limit), min_hold = tonumber(min_hold), once_per = tonumber(once_per),
    length = length,
  }
end

-- Gone at, ttl, instance, terms, value and holder of a waiting claim.
local function waiter_of(text)
  return match(text or '', '^(%d+) (%d+) (%x+)(%S*) (.*)$')
end

-- Whether there is room beside those who hold the lock.
local function fits(lock, terms)
  if lock.only then
    return false
  elseif lock.used == 0 then
    return true
  elseif lock.kind ~= terms.mode then
    return false
  end
  return terms.mode == 'S' or lock.used + terms.weight <= lock.limit
end

-- How long the claim is not due because of the last that was completed.
local function rests_for(lock, terms)
  return terms.once_per > 0 and lock.completed + terms.once_per - now or 0
end

-- The tokens of a grant. Only who holds alone hands the lock on by himself and has a use for more than one.
local function tokens_for(lock, terms)
  local last, tokens = next_tokens(tonumber(lock.counter), lock.epoch)
  if last and terms.mode ~= 'X' then
    last, tokens = format('%d', last - tokens + 1), 1
  end
  return last, tokens
end

-- Writes down that the claim holds the lock.
local function grant(name, lock, claim, instance, ttl, life, terms, rest, last, tokens)
  lock.counter, lock.epoch = last, epoch
  local hold = {
    claim = claim, ends = now + life, last = last, tokens = format('%d', tokens), ttl = format('%d', ttl), instance = instance,
    at = format('%d', now), weight = terms.weight, length = terms.length, rest = rest,
  }
  add(name, lock, terms.mode, hold)
  if terms.limit > 0 then
    lock.limit = terms.limit
  end
  if terms.min_hold > 0 then
    lock.not_before, lock.written_by = now + terms.min_hold, claim
  end
  if terms.length ~= '-' then
    tell_watchers(name)
  end
  return hold
end

-- True if it waited.
local function forget(name, claim)
  if call('HDEL', prefix .. 'w:' .. name, claim) == 1 then
    call('LREM', prefix .. 'q:' .. name, '1', claim)
    return true
  end
end

-- Gives the lock to those who wait, first come first served, as long as they fit beside each other, are alive and listen. One that is alive and
-- does not listen keeps its place and holds up nobody: it asks when it is back. Stops at `me`, who asks now. True if somebody is
-- before that, whom nobody may pass.
local function hand_over(name, lock, me)
  if lock.queued == '0' then
    return false
  end
  local q, w = prefix .. 'q:' .. name, prefix .. 'w:' .. name
  local at = 0
  for _ = 1, LOOKED_AT do
    -- Nobody fits beside it.
    if lock.only then
      return true
    end
    local claim = call('LINDEX', q, at)
    if not claim then
      if at == 0 then
        lock.queued, lock.changed = '0', true
      end
      return false
    elseif claim == me then
      return false
    end
    local gone_at, ttl, instance, written, rest = waiter_of(call('HGET', w, claim))
    local leaves = not gone_at or tonumber(gone_at) <= now
    if not leaves then
      local terms = terms_of(written)
      if rests_for(lock, terms) > 0 then
        -- It hears for how long when it asks.
        tell(instance, 'h ' .. name)
        leaves = true
      elseif lock.not_before > now then
        -- There is nobody who could wake it then but itself.
        if not me then
          tell(instance, 'h ' .. name)
        end
        return true
      elseif fits(lock, terms) then
        local last, tokens = tokens_for(lock, terms)
        if not last then
          return true
        end
        ttl = tonumber(ttl)
        local life = math.min(ttl, CONFIRMED_WITHIN)
        leaves = tell(instance, format('g %s %s %d %d %d', claim, last, tokens, life, now)) > 0
        if leaves then
          grant(name, lock, claim, instance, ttl, life, terms, rest, last, tokens)
        end
      elseif call('PUBSUB', 'NUMSUB', prefix .. 'e:' .. instance)[2] > 0 then
        return true
      end
    end
    if leaves then
      call('LREM', q, '1', claim)
      call('HDEL', w, claim)
    else
      at = at + 1
    end
  end
  return true
end

-- What others wait for becomes theirs, and the record is written.
local function settle(key, name, lock)
  if not in_grace then
    hand_over(name, lock)
  end
  write(key, lock)
end
