-- The same arguments as of acquire; all of them are granted or none.
if not known then
  return { 'E' }
end
local asked, refused = claims()
for i, claim in ipairs(asked) do
  claim.lock = read(claim.key)
  local held = find(claim.name, claim.lock, claim.id)
  if held and held.ends > now then
    claim.held = held
  else
    local why, last, tokens = judge(claim.lock, claim)
    claim.last, claim.tokens = last, tokens
    if why and not refused then
      refused = format('- %d ', i - 1) .. refusal(claim.lock, claim, why)
    end
  end
end
local replies = {}
for i, claim in ipairs(asked) do
  local lock, held = claim.lock, claim.held
  if refused then
    replies = { refused }
    if held then
      -- From an earlier run whose answer was lost.
      remove(claim.name, lock, held)
      if lock.written_by == claim.id then
        lock.not_before, lock.written_by = 0, '-'
      end
      settle(claim.key, claim.name, lock)
    elseif lock.changed then
      write(claim.key, lock)
    end
  elseif held then
    replies[i] = granted(held)
  else
    replies[i] = grant_to(lock, claim, claim.last, claim.tokens)
    write(claim.key, lock)
  end
end
return replies
