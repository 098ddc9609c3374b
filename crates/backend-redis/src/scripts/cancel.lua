-- For each lock: claim.
for i = 2, #KEYS do
  local key, claim = KEYS[i], ARGV[i]
  local lock = read(key)
  forget(name_of(key), claim)
  if lock.claim == claim then
    set_free(key, lock)
  end
end
return 'OK'
