-- For each lock: for how long nobody gets it, those who hold it and those who wait for it.
local replies = {}
for i = 2, #KEYS do
  local key = KEYS[i]
  local name, lock = name_of(key), read(key)
  local told = { format('%d', math.max(lock.not_before - now, 0)) }
  for _, hold in ipairs(holds_of(name, lock)) do
    told[#told + 1] = format(
      'H %s %s %d %s %d %d ', lock.kind, hold.weight, lock.limit, hold.claim, hold.last - hold.tokens + 1, hold.ends - now
    ) .. whose(hold)
  end
  if lock.queued == '1' then
    local waiters, all = {}, call('HGETALL', prefix .. 'w:' .. name)
    for at = 1, #all, 2 do
      waiters[all[at]] = all[at + 1]
    end
    for _, claim in ipairs(call('LRANGE', prefix .. 'q:' .. name, '0', '-1')) do
      local gone_at, _, _, written, rest = waiter_of(waiters[claim])
      if gone_at and tonumber(gone_at) > now then
        local terms = terms_of(written)
        if terms.length ~= '-' then
          rest = sub(rest, terms.length + 1)
        end
        told[#told + 1] = format('W %s %s %d %s ', terms.mode, terms.weight, terms.limit, claim) .. rest
      end
    end
  end
  replies[i - 1] = told
end
return replies
