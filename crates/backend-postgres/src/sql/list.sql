SELECT name FROM @lock WHERE pg_catalog.starts_with(name, $1) AND (mode = 'X' AND ends > @CLOCK OR mode IN ('S', 'P') OR queued) ORDER BY name
