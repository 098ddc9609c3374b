-- A lock that nobody waits for is one update of its row.
WITH fast AS (
  UPDATE @lock AS l SET idle = true, mode = '-', claim = NULL, asked = false
    WHERE l.name = $1 AND l.mode = 'X' AND l.claim = $2 AND l.counter = $3 AND l.tokens = $4
      AND NOT l.queued AND NOT l.scheduled AND l.value IS NULL
    RETURNING l.ends > @CLOCK AS was_held
)
SELECT CASE WHEN was_held THEN '1' ELSE '0' END::"char" AS code FROM fast
UNION ALL
SELECT @release($1, $2, $3, $4, false, $5, false) WHERE NOT EXISTS (SELECT FROM fast)
