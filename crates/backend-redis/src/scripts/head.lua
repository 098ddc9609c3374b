-- What all steps share. KEYS[1] is the epoch record, the other keys are lock records. All times are µs on this server's clock.
-- ARGV[1] is the namespace's prefix, ARGV[2] the epoch record that the caller knows, ARGV[3] its id, ARGV[4] its end of the grace.
--
-- epoch record   <id> <no grants before> <largest ttl> <run> <promoted at>
-- lock record    <counter> <epoch> <queued>, and while it is held also  <claim> <tokens> <ends> <ttl> <instance> <since> <holder>
-- q:<lock>       sorted set of waiting claims by ticket
-- w:<lock>       hash of waiting claims: <gone at> <ttl> <instance> <holder>
local call, match, format = redis.call, string.match, string.format
local prefix, epoch = ARGV[1], ARGV[3]
local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]
local known = call('GET', KEYS[1]) == ARGV[2]
local in_grace = not known or now < tonumber(ARGV[4])

-- How long records outlive what they tell, in ms: the counter of an idle lock is kept for an hour.
local KEPT = 3600000
local LARGEST_TOKEN = 9007199254740991
-- A held lock, in the order above.
local HELD = '%d %s %s %s %d %d %d %s %d %s'

-- The tokens of the next grant: the first and how many. Nothing once they are used up.
local function next_tokens(counter, written)
  local first, tokens = counter + 1, 1
  if written == epoch then
    tokens = math.max(1, math.min(64, now - counter))
  elseif first < now then
    first = now
  end
  if first <= LARGEST_TOKEN - tokens + 1 then
    return first, tokens
  end
end
