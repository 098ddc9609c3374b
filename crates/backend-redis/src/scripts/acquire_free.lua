-- ARGV[5] is the instance that asks; then for each lock: claim, ttl, whether it may wait, holder.
if not known then
  return { 'E' }
end

-- One lock, free and without a queue: the common case, without the detour of all that may come otherwise.
if #KEYS == 2 and not in_grace then
  local counter, written = match(call('GET', KEYS[2]) or '0 - 0', '^(%d+) (%S+) 0$')
  local first, tokens
  if counter then
    first, tokens = next_tokens(tonumber(counter), written)
  end
  if first then
    local ttl = tonumber(ARGV[7])
    local value = format(
      HELD, first + tokens - 1, epoch, '0', ARGV[6], tokens, now + ttl, ttl, ARGV[5], now, ARGV[9]
    )
    call('SET', KEYS[2], value, 'PX', KEPT + math.floor(ttl / 1000))
    return { format('G %d %d %d %d', first, tokens, ttl, now) }
  end
end
