-- A lock that is held alone goes to the first of those who wait, in one update of its row, if that one wants nothing but to hold it alone. No row comes back if
-- anything is otherwise.
--
-- The queue is seen as it was when the statement began. Whoever takes the first out of it changes the row of the lock, which then has another xmin. Whoever has
-- joined it is not seen: so it is left marked as one that may have more.
WITH seen AS (
  SELECT l.xmin AS version, l.ends, w.ticket, w.claim, w.instance, w.ttl, w.holder, clock.now
    FROM @lock AS l
    CROSS JOIN (SELECT @CLOCK AS now) AS clock
    CROSS JOIN LATERAL (SELECT * FROM @wait AS w WHERE w.name = $1 ORDER BY w.ticket LIMIT 1) AS w
    WHERE l.name = $1 AND w.mode = 'X' AND w.gone_at > now AND w.min_hold = 0 AND w.value IS NULL
),
granted AS (
  UPDATE @lock AS l SET
    counter = l.counter + greatest(1, least(64, now - l.counter)), tokens = greatest(1, least(64, now - l.counter))::integer,
    claim = s.claim, instance = s.instance, ttl = s.ttl, ends = now + least(s.ttl, 2000000), since = now, holder = s.holder, asked = false
    FROM seen AS s, @epoch AS e
    WHERE l.name = $1 AND l.xmin = s.version
      AND e.id = $5 AND e.xmin = e.written_by AND e.started = pg_catalog.pg_postmaster_start_time() AND e.no_grants_before <= now
      AND CASE WHEN l.mode = 'X' AND l.claim = $2 AND l.counter = $3 AND l.tokens = $4 AND NOT l.scheduled AND l.value IS NULL
          AND l.epoch = $5 AND l.counter <= @LAST_TOKEN
        THEN pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended($1, @SEED))
          AND pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended($1, @SEED + 1))
        ELSE false END
    RETURNING CASE WHEN s.ends > now THEN '1' ELSE '0' END::"char" AS code, s.ticket, l.claim, l.instance, l.counter, l.tokens,
      least(s.ttl, 2000000) AS life, l.since
),
left_queue AS (
  DELETE FROM @wait AS w USING granted AS g WHERE w.name = $1 AND w.ticket = g.ticket
)
SELECT g.code, pg_catalog.pg_notify(
    'locks_' || g.instance, 'g ' || g.claim || ' ' || g.counter || ' ' || g.tokens || ' ' || g.life || ' ' || g.since
  ) FROM granted AS g
