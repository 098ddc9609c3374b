-- What the steps are made of. Whoever changes a lock has its row locked; `l` is that row, changed in memory and written at the end.

-- Locks the row of a lock, which is made first if `p_make`. The name is null if there is none; the mode is ! if another transaction
-- has it locked and `p_skip` says not to wait for it.
CREATE FUNCTION @open(p_name text, p_make boolean, p_skip boolean) RETURNS @lock LANGUAGE plpgsql AS $$
DECLARE
  l @lock;
BEGIN
  LOOP
    IF p_skip THEN
      SELECT * INTO l FROM @lock WHERE name = p_name FOR NO KEY UPDATE SKIP LOCKED;
      IF l.name IS NULL AND EXISTS (SELECT FROM @lock WHERE name = p_name) THEN
        l.mode := '!';
        RETURN l;
      END IF;
    ELSE
      SELECT * INTO l FROM @lock WHERE name = p_name FOR NO KEY UPDATE;
    END IF;
    IF l.name IS NOT NULL OR NOT p_make THEN
      RETURN l;
    END IF;
    INSERT INTO @lock (name, scheduled)
      VALUES (p_name, EXISTS (SELECT FROM @schedule WHERE name = p_name)) ON CONFLICT DO NOTHING;
  END LOOP;
END $$;

CREATE FUNCTION @write(l @lock) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  now bigint := @CLOCK;
BEGIN
  IF l.scheduled THEN
    -- No interval is longer than a year.
    DELETE FROM @schedule WHERE name = l.name AND not_before <= now AND completed + 31622400000000 < now;
    l.scheduled := EXISTS (SELECT FROM @schedule WHERE name = l.name);
  END IF;
  UPDATE @lock SET
    counter = l.counter, epoch = l.epoch, queued = l.queued, scheduled = l.scheduled, mode = l.mode, lim = l.lim, used = l.used,
    idle = l.mode = '-' AND NOT l.queued AND NOT l.scheduled,
    claim = l.claim, tokens = l.tokens, ends = l.ends, ttl = l.ttl, instance = l.instance, asked = l.asked, since = l.since,
    holder = l.holder, value = l.value, broken = l.broken
    WHERE name = l.name;
END $$;

-- Says something to the process that has this instance.
CREATE FUNCTION @tell(p_instance uuid, p_message text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.pg_notify('locks_' || p_instance, p_message);
END $$;

-- Those who watch the lock's value read it again.
CREATE FUNCTION @tell_watchers(p_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.pg_notify('locks_v_' || pg_catalog.hashtextextended(p_name, @SEED), 'c ' || p_name);
END $$;

-- Takes the lock from who holds it alone.
CREATE FUNCTION @let_go(l @lock) RETURNS @lock LANGUAGE plpgsql AS $$
BEGIN
  IF l.value IS NOT NULL THEN
    PERFORM @tell_watchers(l.name);
  END IF;
  l.mode := '-';
  l.claim := NULL; l.tokens := NULL; l.ends := NULL; l.ttl := NULL; l.instance := NULL; l.holder := NULL; l.value := NULL;
  l.asked := false;
  RETURN l;
END $$;

-- Takes the lock from one of those who hold it with others.
CREATE FUNCTION @leave(l @lock, h @hold) RETURNS @lock LANGUAGE plpgsql AS $$
BEGIN
  l.used := l.used - h.weight;
  IF l.used <= 0 THEN
    l.used := 0;
    l.mode := '-';
  END IF;
  IF h.value IS NOT NULL THEN
    PERFORM @tell_watchers(l.name);
  END IF;
  RETURN l;
END $$;

-- Takes the lock from those whose time has passed, and says so unless it is `p_me`, who asks now.
CREATE FUNCTION @reap(l @lock, p_me uuid) RETURNS @lock LANGUAGE plpgsql AS $$
DECLARE
  now bigint := @CLOCK;
  h @hold;
BEGIN
  IF l.mode = 'X' THEN
    IF l.ends <= now THEN
      IF l.claim IS DISTINCT FROM p_me THEN
        PERFORM @tell(l.instance, 'l ' || l.claim || ' ' || l.counter || ' ' || l.name);
      END IF;
      l := @let_go(l);
    END IF;
  ELSIF l.used > 0 THEN
    FOR h IN DELETE FROM @hold WHERE name = l.name AND ends <= now RETURNING * LOOP
      IF h.claim IS DISTINCT FROM p_me THEN
        PERFORM @tell(h.instance, 'l ' || h.claim || ' ' || h.last || ' ' || l.name);
      END IF;
      l := @leave(l, h);
    END LOOP;
    -- Deleted by hand: what is not there holds nothing.
    IF l.used > 0 AND NOT EXISTS (SELECT FROM @hold WHERE name = l.name) THEN
      l.used := 0;
      l.mode := '-';
    END IF;
  END IF;
  RETURN l;
END $$;

-- Whether there is room beside those who hold the lock.
CREATE FUNCTION @fits(l @lock, p_mode "char", p_weight bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  RETURN l.mode IN ('-', 'B') OR l.mode = p_mode AND (p_mode = 'S' OR p_mode = 'P' AND l.used + p_weight <= l.lim);
END $$;

-- Whether no transaction relies on that nobody gets the lock before it ends. Nobody can begin to until this one ends.
CREATE FUNCTION @unverified(p_name text, p_mode "char") RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  v_alone bigint := pg_catalog.hashtextextended(p_name, @SEED);
  v_shared bigint := pg_catalog.hashtextextended(p_name, @SEED + 1);
BEGIN
  RETURN pg_catalog.pg_try_advisory_xact_lock(v_alone) AND (p_mode <> 'X' OR pg_catalog.pg_try_advisory_xact_lock(v_shared))
    OR @unverified_soon(v_alone, v_shared, p_mode);
END $$;

-- The same in a moment: a step that has just ended gives the row free a little before this.
CREATE FUNCTION @unverified_soon(p_alone bigint, p_shared bigint, p_mode "char") RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.set_config('lock_timeout', '20ms', true);
  PERFORM pg_catalog.pg_advisory_xact_lock(p_alone);
  IF p_mode = 'X' THEN
    PERFORM pg_catalog.pg_advisory_xact_lock(p_shared);
  END IF;
  RETURN true;
EXCEPTION WHEN lock_not_available THEN
  RETURN false;
END $$;

-- Lets the claim hold the lock, beside those who do.
CREATE FUNCTION @grant(
  l @lock, p_claim uuid, p_instance uuid, p_ttl bigint, p_life bigint, p_mode "char", p_weight bigint, p_lim bigint, p_min_hold bigint,
  p_holder text, p_value bytea, p_known_epoch bigint
) RETURNS @lock LANGUAGE plpgsql AS $$
DECLARE
  now bigint := @CLOCK;
  n integer := 1;
BEGIN
  -- Only who holds alone hands the lock on by himself and has a use for more than one token.
  IF l.epoch <> p_known_epoch THEN
    l.counter := greatest(l.counter + 1, now);
  ELSE
    IF p_mode = 'X' THEN
      n := greatest(1, least(64, now - l.counter));
    END IF;
    l.counter := l.counter + n;
  END IF;
  l.epoch := p_known_epoch;
  l.since := now;
  l.mode := p_mode;
  IF p_mode = 'X' THEN
    l.claim := p_claim; l.tokens := n; l.ends := now + p_life; l.ttl := p_ttl; l.instance := p_instance;
    l.holder := p_holder; l.value := p_value; l.asked := false;
  ELSE
    IF l.used = 0 THEN
      DELETE FROM @hold WHERE name = l.name;
    END IF;
    INSERT INTO @hold (name, claim, weight, last, tokens, ends, ttl, instance, since, holder, value)
      VALUES (l.name, p_claim, p_weight, l.counter, n, now + p_life, p_ttl, p_instance, now, p_holder, p_value);
    l.used := l.used + p_weight;
    IF p_lim > 0 THEN
      l.lim := p_lim;
    END IF;
  END IF;
  IF p_min_hold > 0 THEN
    INSERT INTO @schedule AS s (name, not_before, written_by) VALUES (l.name, now + p_min_hold, p_claim)
      ON CONFLICT (name) DO UPDATE SET not_before = excluded.not_before, written_by = excluded.written_by;
    l.scheduled := true;
  END IF;
  IF p_value IS NOT NULL THEN
    PERFORM @tell_watchers(l.name);
  END IF;
  RETURN l;
END $$;

-- Gives the lock to those who wait, first come first served, as long as they fit beside each other. Stops at `p_me`, who asks now. `blocked`
-- if somebody is before that, whom nobody may pass.
CREATE FUNCTION @hand_over(INOUT l @lock, p_me uuid, p_known_epoch bigint, OUT blocked boolean) LANGUAGE plpgsql AS $$
DECLARE
  now bigint := @CLOCK;
  w @wait;
  s @schedule;
  leaves boolean;
  life bigint;
BEGIN
  blocked := l.queued;
  IF NOT blocked THEN
    RETURN;
  END IF;
  FOR w IN SELECT * FROM @wait WHERE name = l.name ORDER BY ticket LIMIT 1024 LOOP
    IF w.claim = p_me THEN
      blocked := false;
      RETURN;
    -- Nobody fits beside it.
    ELSIF l.mode = 'X' THEN
      RETURN;
    END IF;
    s := NULL;
    IF l.scheduled THEN
      SELECT * INTO s FROM @schedule WHERE name = l.name;
    END IF;
    leaves := w.gone_at <= now;
    IF NOT leaves THEN
      IF w.once_per > 0 AND s.completed + w.once_per > now THEN
        -- It hears for how long when it asks.
        PERFORM @tell(w.instance, 'h ' || l.name);
        leaves := true;
      ELSIF s.not_before > now THEN
        -- There is nobody who could wake it then but itself.
        IF p_me IS NULL THEN
          PERFORM @tell(w.instance, 'h ' || l.name);
        END IF;
        RETURN;
      ELSIF NOT @fits(l, w.mode, w.weight) OR l.counter > @LAST_TOKEN THEN
        RETURN;
      ELSIF NOT @unverified(l.name, w.mode) THEN
        IF p_me IS NULL THEN
          PERFORM @tell(w.instance, 'h ' || l.name);
        END IF;
        RETURN;
      ELSE
        -- For that long the lock waits for its new holder to confirm it.
        life := least(w.ttl, 2000000);
        l := @grant(
          l, w.claim, w.instance, w.ttl, life, w.mode, w.weight, w.lim, w.min_hold, w.holder, w.value, p_known_epoch
        );
        PERFORM @tell(
          w.instance,
          'g ' || w.claim || ' ' || l.counter || ' ' || CASE w.mode WHEN 'X' THEN l.tokens ELSE 1 END || ' ' || life || ' ' || l.since
        );
        leaves := true;
      END IF;
    END IF;
    IF leaves THEN
      DELETE FROM @wait WHERE name = w.name AND ticket = w.ticket;
    END IF;
  END LOOP;
  blocked := EXISTS (SELECT FROM @wait WHERE name = l.name AND claim IS DISTINCT FROM p_me);
  l.queued := blocked OR EXISTS (SELECT FROM @wait WHERE name = l.name);
END $$;

-- What others wait for becomes theirs, and the row is written.
CREATE FUNCTION @settle(l @lock, p_known_epoch bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  r record;
BEGIN
  IF l.queued AND EXISTS (
    SELECT FROM @epoch WHERE id = p_known_epoch AND xmin = written_by AND started = pg_catalog.pg_postmaster_start_time()
      AND no_grants_before <= @CLOCK
  ) THEN
    r := @hand_over(l, NULL, p_known_epoch);
    l := r.l;
  END IF;
  PERFORM @write(l);
END $$;

-- Why the claim can't be granted now, once all that are before it have what is theirs: R in grace, M another limit, O not due for itself,
-- N not due for anybody, B held or awaited, V a transaction relies on the last hold, T no token is left. Otherwise null.
CREATE FUNCTION @judge(
  INOUT l @lock, p_claim uuid, p_mode "char", p_weight bigint, p_lim bigint, p_once_per bigint, p_known_epoch bigint,
  p_no_grants_before bigint, OUT why "char", OUT micros bigint
) LANGUAGE plpgsql AS $$
DECLARE
  now bigint;
  s @schedule;
  r record;
  other bigint;
BEGIN
  l := @reap(l, p_claim);
  now := @CLOCK;
  IF l.mode IN ('-', 'B') AND p_lim > 0 AND NOT l.queued THEN
    -- An idle semaphore takes the limit of the next claim.
    l.lim := p_lim;
  END IF;
  IF now < p_no_grants_before AND @fits(l, p_mode, p_weight) THEN
    why := 'R';
    micros := p_no_grants_before - now;
    RETURN;
  END IF;
  IF p_mode = 'P' THEN
    IF l.mode = 'P' THEN
      other := l.lim;
    ELSIF l.queued THEN
      SELECT lim INTO other FROM @wait
        WHERE name = l.name AND mode = 'P' AND lim <> p_lim AND gone_at > now AND claim <> p_claim LIMIT 1;
    END IF;
    IF other <> p_lim THEN
      why := 'M';
      micros := other;
      RETURN;
    END IF;
    l.lim := p_lim;
  END IF;
  IF l.scheduled THEN
    SELECT * INTO s FROM @schedule WHERE name = l.name;
  END IF;
  IF p_once_per > 0 AND s.completed + p_once_per > now THEN
    why := 'O';
    micros := s.completed + p_once_per - now;
    RETURN;
  ELSIF now < p_no_grants_before THEN
    why := 'B';
    RETURN;
  END IF;
  IF l.queued THEN
    r := @hand_over(l, p_claim, p_known_epoch);
    l := r.l;
    IF r.blocked THEN
      why := 'B';
    ELSIF l.scheduled THEN
      SELECT * INTO s FROM @schedule WHERE name = l.name;
    END IF;
  END IF;
  IF why IS NOT NULL OR NOT @fits(l, p_mode, p_weight) THEN
    why := 'B';
  ELSIF s.not_before > now THEN
    why := 'N';
    micros := s.not_before - now;
  ELSIF l.counter > @LAST_TOKEN THEN
    why := 'T';
  ELSIF NOT @unverified(l.name, p_mode) THEN
    why := 'V';
  END IF;
END $$;
