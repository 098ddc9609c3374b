SELECT s.* FROM (
  SELECT * FROM unnest(
    $1::text[], $2::uuid[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::text[], $10::bytea[], $13::boolean[]
  ) WITH ORDINALITY AS c (name, claim, ttl, mode, weight, lim, min_hold, once_per, holder, value, waits, nr)
) AS c
CROSS JOIN LATERAL @acquire(
  c.name, c.claim, $11, c.ttl, c.mode::"char", c.weight, c.lim, c.waits, c.min_hold, c.once_per, c.holder, c.value, $12, $14
) AS s
ORDER BY c.nr
