-- A claim to hold a lock alone goes behind those who wait for one that is held alone. No row comes back if anything is otherwise.
WITH held AS MATERIALIZED (
  SELECT l.ends, l.since, l.holder, clock.now FROM @lock AS l, @epoch AS e, (SELECT @CLOCK AS now) AS clock
    WHERE l.name = $1 AND l.mode = 'X' AND l.queued AND l.claim <> $2 AND l.ends > now
      AND e.id = $6 AND e.xmin = e.written_by AND e.started = pg_catalog.pg_postmaster_start_time() AND e.no_grants_before <= now
    FOR NO KEY UPDATE OF l
),
waits AS (
  INSERT INTO @wait AS w (name, claim, instance, mode, weight, lim, ttl, gone_at, min_hold, once_per, holder)
    SELECT $1, $2, $3, 'X', 1, 0, $4, now + $4, 0, 0, $5 FROM held
    ON CONFLICT (name, claim) DO UPDATE SET gone_at = excluded.gone_at
    RETURNING w.ticket
)
-- Who came or went while this waited for the row is not seen: the number is for people to read.
SELECT 'Q'::"char" AS code, least($4 / 3, h.ends - h.now) + 1000 AS micros, h.now AS at, h.since, h.holder,
    (SELECT count(*) FROM @wait AS w WHERE w.name = $1 AND w.ticket < waits.ticket) AS ahead
  FROM held AS h, waits
