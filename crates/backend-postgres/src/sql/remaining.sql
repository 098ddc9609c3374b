-- What is left of this very grant, without a look at who else has its row. No row if it is not there.
SELECT 'R'::"char" AS code, ends - @CLOCK AS micros FROM (
  SELECT ends FROM @lock WHERE name = $1 AND mode = 'X' AND claim = $2 AND counter = $3 AND tokens = $4
  UNION ALL
  SELECT ends FROM @hold WHERE name = $1 AND claim = $2 AND last = $3 AND tokens = $4
) AS held WHERE ends > @CLOCK
