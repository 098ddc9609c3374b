-- For each lock: claim, last token, number of tokens.
-- One lock for which nobody waits: the common case. It grants nothing, so the epoch is no matter.
if #KEYS == 2 then
  local counter, written, claim, tokens, ends =
    match(call('GET', KEYS[2]) or '', '^(%d+) (%x+) 0 (%x+) (%d+) (%d+)')
  if claim == ARGV[2] and counter == ARGV[3] and tokens == ARGV[4] then
    call('SET', KEYS[2], counter .. ' ' .. written .. ' 0', 'PX', KEPT)
    return { tonumber(ends) > now and '1' or '0' }
  end
end
