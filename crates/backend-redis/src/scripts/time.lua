-- What all steps share. KEYS[1] is the epoch record, the other keys are lock records. All times are µs on this server's clock, but <since>: s.
-- ARGV[1] is the epoch record that the caller knows. KEPT, which comes before this, is how long records outlive their last change, in ms.
--
-- epoch record   <id> <no grants before> <largest ttl> <run> <promoted at>; the first two have 16 characters each
-- lock record    <counter> <epoch> <queued>, and while it is held also  <claim> <tokens> <ends> <ttl> <instance> <since> <holder>
--                That is all that a lock needs which is only ever held alone and without terms. Otherwise it is
--                <counter> <epoch> ~<queued>,<kind>,<limit>,<used>,<not before>,<written by>,<completed>
--                and while somebody holds it alone also  <claim> <ends> <hold>
--                kind: - free, B free since it was broken, X held alone, S shared, P permits; used: by readers or permits
-- h:<lock>       hash of those who hold with others: <hold> by claim; x:<lock>, a sorted set, has their ends
-- hold           <last token> <tokens> <ttl> <instance> <granted at> <weight> <length of the value> <value><holder>
--                weight: 1 of a reader, the number of permits, 1 of who holds alone with terms
-- q:<lock>       list of waiting claims, first come first
-- w:<lock>       hash of waiting claims: <gone at> <ttl> <instance> <holder>, or with terms <gone at> <ttl> <instance>/<terms> <value><holder>
-- terms          <X, S or P>,<weight>,<limit>,<minimum hold>,<once per>,<length of the value>; a length is - without a value
-- e:<instance>   channel of a process; c:<lock>, channel of those who watch a lock's value
--
-- Numbers are turned into text as seldom as possible: that is what a step would spend most of its time on.
local call, match, format, sub = redis.call, string.match, string.format, string.sub
local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]
