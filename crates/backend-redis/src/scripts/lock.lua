-- A lock's record and those who hold it.
local A_YEAR = 31622400000

local prefix = sub(KEYS[1], 1, -6)

local function name_of(key)
  return sub(key, #prefix + 3)
end

local function tell(instance, message)
  return call('PUBLISH', prefix .. 'e:' .. instance, message)
end

-- Those who watch the lock's value read it again.
local function tell_watchers(name)
  call('PUBLISH', prefix .. 'c:' .. name, 'c ' .. name)
end

local function decode(claim, ends, text)
  local last, tokens, ttl, instance, at, weight, length, rest =
    match(text, '^(%d+) (%d+) (%d+) (%x+) (%d+) (%d+) (%S+) (.*)$')
  return {
    claim = claim, ends = ends, last = last, tokens = tokens, ttl = ttl, instance = instance, at = at, weight = weight,
    length = length, rest = rest,
  }
end

local function encode(hold)
  return hold.last .. ' ' .. hold.tokens .. ' ' .. hold.ttl .. ' ' .. hold.instance .. ' ' .. hold.at .. ' ' .. hold.weight
    .. ' ' .. hold.length .. ' ' .. hold.rest
end

-- `<since> <holder>`.
local function whose(hold)
  local holder = hold.rest
  if hold.length ~= '-' then
    holder = sub(holder, hold.length + 1)
  end
  return sub(hold.at, 1, -7) .. ' ' .. holder
end

local function read(key)
  local lock = {
    counter = '0', epoch = '-', queued = '0', kind = '-', limit = 0, used = 0, not_before = 0, written_by = '-', completed = 0,
  }
  local value = call('GET', key)
  if not value then
    return lock
  end
  local counter, written, queued, rest = match(value, '^(%d+) (%x+) (%d)(.*)$')
  if counter then
    if rest ~= '' then
      local claim, tokens, ends, ttl, instance, since, holder =
        match(rest, '^ (%x+) (%d+) (%d+) (%d+) (%x+) (%d+) (.*)$')
      lock.kind = 'X'
      lock.only = {
        claim = claim, ends = tonumber(ends), last = counter, tokens = tokens, ttl = ttl, instance = instance,
        at = since .. '000000', weight = '0', length = '-', rest = holder,
      }
    end
  else
    local kind, limit, used, not_before, written_by, completed
    counter, written, queued, kind, limit, used, not_before, written_by, completed, rest =
      match(value, '^(%d+) (%x+) ~(%d),(.),(%d+),(%d+),(%d+),(%S+),(%d+)(.*)$')
    if not counter then
      error('the record ' .. key .. ' was not written by locks, or by a later version of it')
    end
    lock.kind, lock.limit, lock.used = kind, tonumber(limit), tonumber(used)
    lock.not_before, lock.written_by, lock.completed = tonumber(not_before), written_by, tonumber(completed)
    lock.with_terms = true
    if rest ~= '' then
      local claim, ends, hold = match(rest, '^ (%x+) (%d+) (.*)$')
      lock.only = decode(claim, tonumber(ends), hold)
    end
  end
  lock.counter, lock.epoch, lock.queued = counter, written, queued
  return lock
end

local function write(key, lock)
  if lock.epoch == '-' then
    return
  end
  local only, kept = lock.only, KEPT
  local is_due = lock.not_before <= now
  -- No interval is longer than a year.
  if lock.completed > 0 and lock.completed + A_YEAR * 1000 < now then
    lock.completed = 0
  end
  local value = lock.counter .. ' ' .. lock.epoch .. ' '
  if
    is_due and lock.completed == 0 and (lock.kind == '-' or only and only.weight == '0')
    and not (lock.with_terms and lock.queued == '1')
  then
    value = value .. lock.queued
    if only then
      value = value .. ' ' .. only.claim .. ' ' .. only.tokens .. ' ' .. format('%d', only.ends) .. ' ' .. only.ttl .. ' '
        .. only.instance .. ' ' .. whose(only)
    end
  else
    local written_by = lock.written_by
    if is_due then
      lock.not_before, written_by = 0, '-'
    else
      kept = math.max(kept, (lock.not_before - now) / 1000 + 1)
    end
    if lock.completed > 0 then
      kept = math.max(kept, A_YEAR)
    end
    kept = format('%d', kept)
    value = value .. '~' .. lock.queued .. ',' .. lock.kind
      .. format(',%d,%d,%d,%s,%d', lock.limit, lock.used, lock.not_before, written_by, lock.completed)
    if only then
      value = value .. ' ' .. only.claim .. ' ' .. format('%d', only.ends) .. ' ' .. encode(only)
    end
  end
  call('SET', key, value, 'PX', kept)
end

-- This claim's hold, whether or not it has expired.
local function find(name, lock, claim)
  local only = lock.only
  if only then
    if only.claim == claim then
      return only
    end
  elseif lock.used > 0 then
    local text = call('HGET', prefix .. 'h:' .. name, claim)
    if text then
      return decode(claim, tonumber(call('ZSCORE', prefix .. 'x:' .. name, claim) or '0'), text)
    end
  end
end

-- Whether it is this very grant, tokens included: a claim that expired unseen may have been granted again.
local function is_same(hold, last, tokens)
  return hold and hold.last == last and hold.tokens == tokens
end

-- All who hold the lock and have not expired, in the order of their grants.
local function holds_of(name, lock)
  local holds = {}
  if lock.only then
    holds[1] = lock.only.ends > now and lock.only or nil
  elseif lock.used > 0 then
    local texts, ends = call('HGETALL', prefix .. 'h:' .. name), {}
    local scores = call('ZRANGE', prefix .. 'x:' .. name, '0', '-1', 'WITHSCORES')
    for i = 1, #scores, 2 do
      ends[scores[i]] = tonumber(scores[i + 1])
    end
    for i = 1, #texts, 2 do
      local claim = texts[i]
      if (ends[claim] or 0) > now then
        holds[#holds + 1] = decode(claim, ends[claim], texts[i + 1])
      end
    end
    table.sort(holds, function(one, other)
      return tonumber(one.last) < tonumber(other.last)
    end)
  end
  return holds
end

-- Lets it hold the lock, beside those who do.
local function add(name, lock, mode, hold)
  lock.kind, lock.changed = mode, true
  if mode == 'X' then
    lock.only = hold
    return
  end
  local holds, ends = prefix .. 'h:' .. name, prefix .. 'x:' .. name
  if lock.used == 0 then
    call('DEL', holds, ends)
  end
  lock.used = lock.used + hold.weight
  call('HSET', holds, hold.claim, encode(hold))
  call('ZADD', ends, format('%d', hold.ends), hold.claim)
  call('PEXPIRE', holds, KEPT)
  call('PEXPIRE', ends, KEPT)
end

local function remove(name, lock, hold)
  lock.changed = true
  if lock.only then
    lock.only, lock.kind = nil, '-'
  else
    call('HDEL', prefix .. 'h:' .. name, hold.claim)
    call('ZREM', prefix .. 'x:' .. name, hold.claim)
    lock.used = lock.used - hold.weight
    if lock.used <= 0 then
      lock.used, lock.kind = 0, '-'
    end
  end
  if hold.length ~= '-' then
    tell_watchers(name)
  end
end

-- Takes the lock from those whose time has passed, and says so unless it is `me`, who asks now.
local function reap(name, lock, me)
  local only = lock.only
  if only then
    if only.ends <= now then
      if only.claim ~= me then
        tell(only.instance, 'l ' .. only.claim .. ' ' .. name)
      end
      remove(name, lock, only)
    end
  elseif lock.used > 0 then
    local ends = prefix .. 'x:' .. name
    for _, claim in ipairs(call('ZRANGE', ends, '-inf', format('%d', now), 'BYSCORE')) do
      local hold = find(name, lock, claim)
      if hold then
        if claim ~= me then
          tell(hold.instance, 'l ' .. claim .. ' ' .. name)
        end
        remove(name, lock, hold)
      else
        call('ZREM', ends, claim)
      end
    end
    -- Deleted by hand: what is not there holds nothing.
    if lock.used > 0 and #call('ZRANGE', ends, '0', '0') == 0 then
      lock.used, lock.kind, lock.changed = 0, '-', true
    end
  end
end
