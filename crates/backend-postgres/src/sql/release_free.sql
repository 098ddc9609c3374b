-- A lock that nobody waits for is one update of its row. No row comes back if it is anything else.
UPDATE @lock AS l SET idle = true, mode = '-', claim = NULL, asked = false
  WHERE l.name = $1 AND l.mode = 'X' AND l.claim = $2 AND l.counter = $3 AND l.tokens = $4
    AND NOT l.queued AND NOT l.scheduled AND l.value IS NULL
  RETURNING CASE WHEN l.ends > @CLOCK THEN '1' ELSE '0' END::"char" AS code
