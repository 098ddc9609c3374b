SELECT value, token, ends - now AS micros, since, holder FROM (
  SELECT value, counter - tokens + 1 AS token, ends, since, holder FROM @lock WHERE name = $1 AND mode = 'X' AND value IS NOT NULL
  UNION ALL
  SELECT value, last - tokens + 1, ends, since, holder FROM @hold WHERE name = $1 AND value IS NOT NULL
) AS held, (SELECT @CLOCK AS now) AS clock WHERE ends > now ORDER BY token DESC LIMIT 1
