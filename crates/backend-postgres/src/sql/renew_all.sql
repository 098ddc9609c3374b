-- Those that are still held, in one go; the rest one by one, which says why. A row that somebody has locked is among the rest.
WITH asked_for AS MATERIALIZED (
  SELECT * FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::integer[]) WITH ORDINALITY AS g (name, claim, last, tokens, nr)
),
alone AS (
  SELECT l.name, g.nr FROM asked_for AS g JOIN @lock AS l ON l.name = g.name
    WHERE l.mode = 'X' AND l.claim = g.claim AND l.counter = g.last AND l.tokens = g.tokens AND l.ends > @CLOCK
    FOR NO KEY UPDATE OF l SKIP LOCKED
),
shared AS (
  SELECT h.name, h.claim, g.nr FROM asked_for AS g JOIN @hold AS h ON h.name = g.name AND h.claim = g.claim
    WHERE h.last = g.last AND h.tokens = g.tokens AND h.ends > @CLOCK
    FOR NO KEY UPDATE OF h SKIP LOCKED
),
renewed_alone AS (
  UPDATE @lock AS l SET ends = @CLOCK + l.ttl FROM alone WHERE l.name = alone.name AND l.ends > @CLOCK
    RETURNING alone.nr, l.ttl, l.asked
),
renewed_shared AS (
  UPDATE @hold AS h SET ends = @CLOCK + h.ttl FROM shared WHERE h.name = shared.name AND h.claim = shared.claim AND h.ends > @CLOCK
    RETURNING shared.nr, h.ttl, h.asked
)
SELECT nr, ttl, asked FROM renewed_alone UNION ALL SELECT nr, ttl, asked FROM renewed_shared
