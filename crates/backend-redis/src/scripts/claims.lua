-- What a claim gets.

-- The claims of this step, with their terms.
local function claims()
  local asked, at = {}, 3
  for i = 2, #KEYS do
    local how, rest, terms = ARGV[at + 2], ARGV[at + 3], PLAIN
    local claim = { key = KEYS[i], id = ARGV[at], ttl = tonumber(ARGV[at + 1]), may_wait = how == '1' or how == '3' }
    at = at + 4
    if how > '1' then
      terms = terms_of(ARGV[at])
      claim.written = ARGV[at]
      at = at + 1
    end
    claim.name, claim.terms, claim.rest = name_of(claim.key), terms, rest
    asked[i - 1] = claim
  end
  return asked
end

local function granted(hold)
  return format('G %s %s %d', hold.last, hold.tokens, hold.ends - now)
end

-- The other limit that is in force because somebody else holds or awaits permits.
local function other_limit(lock, claim)
  local terms = claim.terms
  if terms.mode ~= 'P' or lock.limit == terms.limit then
    return
  elseif lock.kind == 'P' then
    return lock.limit
  elseif lock.queued == '1' then
    local all = call('HGETALL', prefix .. 'w:' .. claim.name)
    for i = 1, #all, 2 do
      local gone_at, _, _, written = waiter_of(all[i + 1])
      local theirs = terms_of(written or '')
      if theirs.mode == 'P' and theirs.limit ~= terms.limit and tonumber(gone_at) > now and all[i] ~= claim.id then
        return theirs.limit
      end
    end
  end
end

-- Why the claim can't be granted now, once all that are before it have what is theirs: R in grace, M another limit, O not due for itself,
-- N not due for anybody, B held or awaited, T no token is left. Otherwise nothing, and the tokens of its grant.
local function judge(lock, claim)
  local name, terms = claim.name, claim.terms
  reap(name, lock, claim.id)
  if in_grace and fits(lock, terms) then
    return 'R'
  end
  claim.other_limit = other_limit(lock, claim)
  if claim.other_limit then
    return 'M'
  elseif rests_for(lock, terms) > 0 then
    return 'O'
  elseif in_grace or hand_over(name, lock, claim.id) or not fits(lock, terms) then
    return 'B'
  elseif lock.not_before > now then
    return 'N'
  end
  local last, tokens = tokens_for(lock, terms)
  if not last then
    return 'T'
  end
  return nil, last, tokens
end

local function grant_to(lock, claim, last, tokens)
  if lock.queued == '1' then
    forget(claim.name, claim.id)
  end
  return granted(grant(claim.name, lock, claim.id, ARGV[2], claim.ttl, claim.ttl, claim.terms, claim.rest, last, tokens))
end

-- One of those who hold the lock: the one whose time ends first. When that is, and `<since> <holder>`.
local function first_of(name, lock)
  local hold = lock.only
  if not hold and lock.used > 0 then
    hold = find(name, lock, call('ZRANGE', prefix .. 'x:' .. name, '0', '0')[1])
  end
  if hold then
    return hold.ends, whose(hold)
  end
  return lock.not_before > now and lock.not_before or now + A_YEAR, '-'
end

-- What a claim is told that `judge` refused.
local function refusal(lock, claim, why)
  if why == 'B' then
    if lock.only or lock.used > 0 or lock.not_before <= now then
      local _, who = first_of(claim.name, lock)
      return 'B ' .. who
    end
    why = 'N'
  end
  if why == 'R' then
    return format('R %d', sub(ARGV[1], 18, 33) - now)
  elseif why == 'M' then
    return format('M %d', claim.other_limit)
  elseif why == 'O' then
    return format('N %d', rests_for(lock, claim.terms))
  elseif why == 'N' then
    return format('N %d', lock.not_before - now)
  end
  return why
end
