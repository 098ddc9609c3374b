-- ARGV[2] is the instance that asks; then for each lock: claim, ttl, how it is asked for, holder. How: '0' may not wait, '1' may; '2' and '3'
-- are the same with terms, which follow the holder, and then the value is before the holder.
if not known then
  return { 'E' }
end

-- One exclusive lock without terms, free and without a queue: the common case, without the detour of all that may come otherwise.
if #ARGV == 6 and not in_grace then
  local counter, written = match(call('GET', KEYS[2]) or '0 - 0', '^(%d+) (%S+) 0$')
  local last, tokens
  if counter then
    last, tokens = next_tokens(tonumber(counter), written)
  end
  if last then
    local ttl = ARGV[4]
    local ends = format('%d', now + ttl)
    call(
      'SET', KEYS[2], last .. ' ' .. epoch .. ' 0 ' .. ARGV[3] .. ' ' .. tokens .. ' ' .. ends .. ' ' .. ttl .. ' ' .. ARGV[2]
        .. ' ' .. clock[1] .. ' ' .. ARGV[6], 'PX', KEPT
    )
    return { 'G ' .. last .. ' ' .. tokens .. ' ' .. ttl }
  end
end
