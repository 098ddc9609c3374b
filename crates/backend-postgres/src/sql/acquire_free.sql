-- A free lock that nobody waits for is one update of its row. No row comes back if it is anything else.
UPDATE @lock AS l SET
  counter = CASE WHEN l.epoch = $6 THEN l.counter + greatest(1, least(64, now - l.counter)) ELSE greatest(l.counter + 1, now) END,
  tokens = CASE WHEN l.epoch = $6 THEN greatest(1, least(64, now - l.counter)) ELSE 1 END::integer,
  epoch = $6, idle = false, mode = 'X', claim = $2, instance = $3, ttl = $4, ends = now + $4, since = now, holder = $5
  FROM @epoch AS e, (SELECT @CLOCK AS now) AS clock
  WHERE l.name = $1
    AND e.id = $6 AND e.xmin = e.written_by AND e.started = pg_catalog.pg_postmaster_start_time() AND e.no_grants_before <= now
    AND CASE WHEN l.idle AND l.counter <= @LAST_TOKEN
      THEN pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended($1, @SEED))
        AND pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended($1, @SEED + 1))
      ELSE false END
  RETURNING 'G'::"char" AS code, l.counter AS last, l.tokens, $4 AS micros
