-- Who holds and who awaits these locks, and how long nobody gets them.
WITH clock AS MATERIALIZED (SELECT @CLOCK AS now)
SELECT 'H'::"char" AS kind, name, 0::bigint AS ticket, mode, 1::bigint AS weight, 0::bigint AS lim, claim, counter - tokens + 1 AS token, ends - now AS micros, since, holder
  FROM @lock, clock WHERE name = ANY ($1) AND mode = 'X' AND ends > now
UNION ALL
SELECT 'H', h.name, h.last, l.mode, h.weight, l.lim, h.claim, h.last - h.tokens + 1, h.ends - now, h.since, h.holder
  FROM @hold AS h JOIN @lock AS l ON l.name = h.name, clock WHERE h.name = ANY ($1) AND l.mode IN ('S', 'P') AND h.ends > now
UNION ALL
SELECT 'W', name, ticket, mode, weight, lim, claim, NULL, NULL, NULL, holder FROM @wait, clock WHERE name = ANY ($1) AND gone_at > now
UNION ALL
SELECT 'N', name, 0, '-', 0, 0, NULL, NULL, not_before - now, NULL, NULL FROM @schedule, clock WHERE name = ANY ($1) AND not_before > now
ORDER BY name, ticket
