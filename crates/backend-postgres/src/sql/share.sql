-- Keeps everybody from getting the lock until this transaction ends: who holds it alone, or with other readers.
SELECT pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended($1, @SEED + $2::integer)),
  pg_catalog.current_setting('transaction_isolation') AS isolation
