-- Whether this claim holds the lock with this token, in which epoch and how.
SELECT e.id AS epoch, held.mode FROM @epoch AS e LEFT JOIN (
  SELECT mode FROM @lock WHERE name = $1 AND mode = 'X' AND claim = $2 AND $3 BETWEEN counter - tokens + 1 AND counter AND ends > @CLOCK
  UNION ALL
  SELECT l.mode FROM @hold AS h JOIN @lock AS l ON l.name = h.name
    WHERE h.name = $1 AND h.claim = $2 AND $3 BETWEEN h.last - h.tokens + 1 AND h.last AND h.ends > @CLOCK
) AS held ON true
