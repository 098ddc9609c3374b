-- What all steps share. KEYS[1] is the epoch record, the other keys are lock records. All times are µs on this server's clock, but <since>: s.
-- ARGV[1] is the epoch record that the caller knows. KEPT, which comes before this, is how long records outlive their last change, in ms.
--
-- epoch record   <id> <no grants before> <largest ttl> <run> <promoted at>; the first two have 16 characters each
-- lock record    <counter> <epoch> <queued>, and while it is held also  <claim> <tokens> <ends> <ttl> <instance> <since> <holder>
-- q:<lock>       list of waiting claims, first come first
-- w:<lock>       hash of waiting claims: <gone at> <ttl> <instance> <holder>
--
-- Numbers are turned into text as seldom as possible: that is what a step would spend most of its time on.
local call, match, format, sub = redis.call, string.match, string.format, string.sub
local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]
