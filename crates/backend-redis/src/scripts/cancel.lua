-- For each lock: claim.
for i = 2, #KEYS do
  local key, claim = KEYS[i], ARGV[i]
  local name, lock = name_of(key), read(key)
  local waited = forget(name, claim)
  local hold = find(name, lock, claim)
  if hold then
    remove(name, lock, hold)
  end
  -- Nobody got the grant that made others wait.
  local is_taken_back = lock.written_by == claim
  if is_taken_back then
    lock.not_before, lock.written_by = 0, '-'
  end
  if waited or hold or is_taken_back then
    settle(key, name, lock)
  end
end
return 'OK'
