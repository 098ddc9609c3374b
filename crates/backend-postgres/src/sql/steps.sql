-- The steps. A code says what came of it.

-- No grants before this instant: null if the caller's epoch is not the present one.
CREATE FUNCTION @no_grants_before(p_known_epoch bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
  RETURN (
    SELECT no_grants_before FROM @epoch
      WHERE id = p_known_epoch AND xmin = written_by AND started = pg_catalog.pg_postmaster_start_time()
  );
END $$;

-- What this claim holds: its tokens and what is left of its time, or nothing.
CREATE FUNCTION @held(l @lock, p_claim uuid, OUT last bigint, OUT tokens integer, OUT micros bigint, OUT since bigint) LANGUAGE plpgsql AS $$
DECLARE
  h @hold;
  now bigint := @CLOCK;
BEGIN
  IF l.mode = 'X' THEN
    IF l.claim = p_claim AND l.ends > now THEN
      last := l.counter; tokens := l.tokens; micros := l.ends - now; since := l.since;
    END IF;
  ELSIF l.used > 0 THEN
    SELECT * INTO h FROM @hold WHERE name = l.name AND claim = p_claim AND ends > now;
    last := h.last; tokens := h.tokens; micros := h.ends - now; since := h.since;
  END IF;
END $$;

-- Grants, queues or refuses a claim. G granted, Q queued, E another epoch, L the row is locked; otherwise as judge says, O as N.
CREATE FUNCTION @acquire(
  p_name text, p_claim uuid, p_instance uuid, p_ttl bigint, p_mode "char", p_weight bigint, p_lim bigint, p_waits boolean,
  p_min_hold bigint, p_once_per bigint, p_holder text, p_value bytea, p_known_epoch bigint, p_skip boolean,
  OUT code "char", OUT last bigint, OUT tokens integer, OUT micros bigint, OUT ahead bigint, OUT at bigint, OUT since bigint, OUT holder text
) LANGUAGE plpgsql AS $$
DECLARE
  l @lock;
  o @lock;
  r record;
  v_no_grants_before bigint;
  v_ticket bigint;
  v_first bigint;
BEGIN
  v_no_grants_before := @no_grants_before(p_known_epoch);
  IF v_no_grants_before IS NULL THEN
    code := 'E';
    RETURN;
  END IF;
  -- Most tries that fail need not even lock the row.
  IF NOT p_waits AND p_once_per = 0 AND p_mode <> 'P' THEN
    SELECT s.since, s.holder INTO since, holder FROM @lock AS s
      WHERE s.name = p_name AND s.mode = 'X' AND s.claim <> p_claim AND s.ends > @CLOCK;
    IF FOUND THEN
      code := 'B';
      RETURN;
    END IF;
  END IF;
  l := @open(p_name, true, p_skip);
  IF l.mode = '!' THEN
    code := 'L';
    RETURN;
  END IF;
  o := l;
  r := @held(l, p_claim);
  IF r.last IS NOT NULL THEN
    code := 'G'; last := r.last; tokens := r.tokens; micros := r.micros;
    RETURN;
  END IF;
  r := @judge(l, p_claim, p_mode, p_weight, p_lim, p_once_per, p_known_epoch, v_no_grants_before);
  l := r.l;
  code := r.why;
  micros := r.micros;
  IF code IS NULL THEN
    IF l.queued THEN
      DELETE FROM @wait w WHERE w.name = p_name AND w.claim = p_claim;
      l.queued := EXISTS (SELECT FROM @wait w WHERE w.name = p_name);
    END IF;
    l := @grant(
      l, p_claim, p_instance, p_ttl, p_ttl, p_mode, p_weight, p_lim, p_min_hold, p_holder, p_value, p_known_epoch
    );
    code := 'G'; last := l.counter; tokens := CASE p_mode WHEN 'X' THEN l.tokens ELSE 1 END; micros := p_ttl;
    PERFORM @write(l);
    RETURN;
  ELSIF code = 'N' AND p_waits AND l.queued AND EXISTS (SELECT FROM @wait w WHERE w.name = p_name AND w.claim = p_claim) THEN
    -- It keeps its place.
    code := 'B';
  END IF;
  at := @CLOCK;
  IF code IN ('B', 'V') THEN
    -- Of those who hold the lock, the one whose time ends first.
    IF l.mode = 'X' THEN
      v_first := l.ends; since := l.since; holder := l.holder;
    ELSIF l.used > 0 THEN
      SELECT h.ends, h.since, h.holder INTO v_first, since, holder FROM @hold h WHERE h.name = p_name ORDER BY h.ends LIMIT 1;
    ELSIF l.scheduled THEN
      SELECT s.not_before INTO v_first FROM @schedule s WHERE s.name = p_name AND s.not_before > at;
    END IF;
    IF p_waits THEN
      INSERT INTO @wait AS w (name, claim, instance, mode, weight, lim, ttl, gone_at, min_hold, once_per, holder, value)
        VALUES (
          p_name, p_claim, p_instance, p_mode, p_weight, p_lim, p_ttl, at + p_ttl, p_min_hold, p_once_per, p_holder, p_value
        )
        ON CONFLICT (name, claim) DO UPDATE SET gone_at = excluded.gone_at
        RETURNING w.ticket INTO v_ticket;
      l.queued := true;
      SELECT count(*) INTO ahead FROM @wait w WHERE w.name = p_name AND w.ticket < v_ticket;
      micros := least(
        CASE code WHEN 'V' THEN 250000 ELSE p_ttl / 3 END,
        CASE WHEN v_first > at THEN v_first - at END
      ) + 1000;
      code := 'Q';
      IF l IS DISTINCT FROM o THEN
        PERFORM @write(l);
      END IF;
      RETURN;
    END IF;
    IF holder IS NULL AND v_first IS NOT NULL AND code = 'B' THEN
      code := 'N';
      micros := v_first - at;
    ELSE
      code := 'B';
    END IF;
  ELSIF code = 'O' THEN
    code := 'N';
  END IF;
  IF l.queued AND p_waits THEN
    DELETE FROM @wait w WHERE w.name = p_name AND w.claim = p_claim;
    IF FOUND THEN
      PERFORM @settle(l, p_known_epoch);
      RETURN;
    END IF;
  END IF;
  IF l IS DISTINCT FROM o THEN
    PERFORM @write(l);
  END IF;
END $$;

-- Grants all of these claims, of different names in ascending order, or none of them. One row for each, in order; or one with the first that can't be
-- granted.
CREATE FUNCTION @together(
  p_names text[], p_claims uuid[], p_ttls bigint[], p_modes text[], p_weights bigint[], p_lims bigint[], p_min_holds bigint[],
  p_once_pers bigint[], p_holders text[], p_values bytea[], p_instance uuid, p_known_epoch bigint
) RETURNS TABLE (which integer, code "char", last bigint, tokens integer, micros bigint, since bigint, holder text) LANGUAGE plpgsql AS $$
DECLARE
  locks @lock[] := '{}';
  held boolean[] := '{}';
  l @lock;
  r record;
  v_no_grants_before bigint := @no_grants_before(p_known_epoch);
  refused boolean := false;
BEGIN
  IF v_no_grants_before IS NULL THEN
    which := 0; code := 'E';
    RETURN NEXT;
    RETURN;
  END IF;
  FOR i IN 1 .. cardinality(p_names) LOOP
    l := @open(p_names[i], true, false);
    r := @held(l, p_claims[i]);
    held[i] := r.last IS NOT NULL;
    IF NOT held[i] THEN
      r := @judge(
        l, p_claims[i], p_modes[i]::"char", p_weights[i], p_lims[i], p_once_pers[i], p_known_epoch, v_no_grants_before
      );
      l := r.l;
      IF r.why IS NOT NULL AND NOT refused THEN
        refused := true;
        which := i - 1; code := r.why; micros := r.micros;
        IF code IN ('B', 'V') THEN
          code := 'B';
          IF l.mode = 'X' THEN
            since := l.since; holder := l.holder;
          ELSE
            SELECT h.since, h.holder INTO since, holder FROM @hold h WHERE h.name = l.name ORDER BY h.ends LIMIT 1;
          END IF;
        ELSIF code = 'O' THEN
          code := 'N';
        END IF;
      END IF;
    END IF;
    locks[i] := l;
  END LOOP;
  IF refused THEN
    RETURN NEXT;
  END IF;
  FOR i IN 1 .. cardinality(p_names) LOOP
    l := locks[i];
    IF refused THEN
      IF held[i] THEN
        -- From an earlier run whose answer was lost.
        PERFORM @cancel(l.name, p_claims[i], p_known_epoch, false);
      ELSE
        PERFORM @write(l);
      END IF;
    ELSE
      IF NOT held[i] THEN
        l := @grant(
          l, p_claims[i], p_instance, p_ttls[i], p_ttls[i], p_modes[i]::"char", p_weights[i], p_lims[i], p_min_holds[i], p_holders[i],
          p_values[i], p_known_epoch
        );
        PERFORM @write(l);
      END IF;
      SELECT h.last, h.tokens, h.micros INTO last, tokens, micros FROM @held(l, p_claims[i]) h;
      which := i - 1; code := 'G';
      RETURN NEXT;
    END IF;
  END LOOP;
END $$;

-- Gives back this very grant: 1 done, 0 not held, L the row is locked. With `p_completes` what it was taken for was done.
CREATE FUNCTION @release(
  p_name text, p_claim uuid, p_last bigint, p_tokens integer, p_completes boolean, p_known_epoch bigint, p_skip boolean
) RETURNS "char" LANGUAGE plpgsql AS $$
DECLARE
  l @lock := @open(p_name, false, p_skip);
  h @hold;
  was_held boolean;
  v_since bigint;
BEGIN
  IF l.mode = '!' THEN
    RETURN 'L';
  ELSIF l.mode = 'X' AND l.claim = p_claim AND l.counter = p_last AND l.tokens = p_tokens THEN
    was_held := l.ends > @CLOCK;
    v_since := l.since;
    l := @let_go(l);
  ELSIF l.used > 0 THEN
    DELETE FROM @hold WHERE name = p_name AND claim = p_claim AND last = p_last AND tokens = p_tokens RETURNING * INTO h;
    IF h.name IS NOT NULL THEN
      was_held := h.ends > @CLOCK;
      v_since := h.since;
      l := @leave(l, h);
    END IF;
  END IF;
  IF was_held IS NULL THEN
    RETURN '0';
  END IF;
  IF p_completes AND was_held THEN
    INSERT INTO @schedule AS s (name, completed) VALUES (p_name, v_since)
      ON CONFLICT (name) DO UPDATE SET completed = greatest(s.completed, excluded.completed);
    l.scheduled := true;
  END IF;
  PERFORM @settle(l, p_known_epoch);
  RETURN CASE WHEN was_held THEN '1' ELSE '0' END;
END $$;

-- Undoes a claim, whatever it reached.
CREATE FUNCTION @cancel(p_name text, p_claim uuid, p_known_epoch bigint, p_skip boolean) RETURNS "char" LANGUAGE plpgsql AS $$
DECLARE
  l @lock := @open(p_name, false, p_skip);
  h @hold;
  changed boolean := false;
BEGIN
  IF l.mode = '!' THEN
    RETURN 'L';
  ELSIF l.name IS NULL THEN
    RETURN '1';
  END IF;
  DELETE FROM @wait WHERE name = p_name AND claim = p_claim;
  changed := FOUND;
  IF l.mode = 'X' AND l.claim = p_claim THEN
    l := @let_go(l);
    changed := true;
  ELSIF l.used > 0 THEN
    DELETE FROM @hold WHERE name = p_name AND claim = p_claim RETURNING * INTO h;
    IF h.name IS NOT NULL THEN
      l := @leave(l, h);
      changed := true;
    END IF;
  END IF;
  IF l.scheduled THEN
    -- Nobody got the grant that made others wait.
    UPDATE @schedule SET not_before = 0, written_by = NULL WHERE name = p_name AND written_by = p_claim;
    changed := changed OR FOUND;
  END IF;
  IF changed THEN
    PERFORM @settle(l, p_known_epoch);
  END IF;
  RETURN '1';
END $$;

-- Renews one grant: R renewed, A renewed and its holder is asked to give it back; otherwise gone: X expired, T taken, D deleted, S the store is
-- another one.
CREATE FUNCTION @renew(
  p_name text, p_claim uuid, p_last bigint, p_tokens integer, p_known_epoch bigint, OUT code "char", OUT micros bigint
) LANGUAGE plpgsql AS $$
DECLARE
  l @lock := @open(p_name, false, false);
  h @hold;
BEGIN
  IF l.mode = 'X' AND l.claim = p_claim AND l.counter = p_last AND l.tokens = p_tokens THEN
    UPDATE @lock SET ends = @CLOCK + ttl WHERE name = p_name AND ends > @CLOCK RETURNING ttl INTO micros;
    h.asked := l.asked;
  ELSIF l.used > 0 THEN
    UPDATE @hold SET ends = @CLOCK + ttl
      WHERE name = p_name AND claim = p_claim AND last = p_last AND tokens = p_tokens AND ends > @CLOCK RETURNING * INTO h;
    micros := h.ttl;
    IF h.name IS NULL AND EXISTS (SELECT FROM @hold WHERE name = p_name AND claim = p_claim AND last = p_last) THEN
      code := 'X';
      RETURN;
    END IF;
  END IF;
  code := CASE
    WHEN micros IS NOT NULL AND h.asked THEN 'A'
    WHEN micros IS NOT NULL THEN 'R'
    WHEN l.mode = 'B' OR p_claim = ANY (l.broken) THEN 'D'
    WHEN l.mode = 'X' AND l.claim = p_claim THEN 'X'
    WHEN l.mode IN ('X', 'S', 'P') THEN 'T'
    WHEN l.epoch <> 0 THEN 'X'
    WHEN @no_grants_before(p_known_epoch) <= @CLOCK THEN 'D'
    -- Whatever was granted before the grace is renewed once in it.
    ELSE 'S'
  END;
END $$;

-- Who holds alone holds with other readers from now on.
CREATE FUNCTION @downgrade(p_name text, p_claim uuid, p_last bigint, p_tokens integer, p_known_epoch bigint) RETURNS "char" LANGUAGE plpgsql AS $$
DECLARE
  l @lock := @open(p_name, false, false);
BEGIN
  IF l.mode = 'X' AND l.claim = p_claim AND l.counter = p_last AND l.tokens = p_tokens AND l.ends > @CLOCK THEN
    DELETE FROM @hold WHERE name = p_name;
    INSERT INTO @hold (name, claim, weight, last, tokens, ends, ttl, instance, asked, since, holder, value)
      VALUES (p_name, p_claim, 1, p_last, p_tokens, l.ends, l.ttl, l.instance, l.asked, l.since, l.holder, l.value);
    l.value := NULL;
    l := @let_go(l);
    l.mode := 'S';
    l.used := 1;
    PERFORM @settle(l, p_known_epoch);
    RETURN '1';
  END IF;
  RETURN CASE WHEN l.mode = 'S' AND EXISTS (
    SELECT FROM @hold WHERE name = p_name AND claim = p_claim AND last = p_last AND tokens = p_tokens AND ends > @CLOCK
  ) THEN '1' ELSE '0' END;
END $$;

CREATE FUNCTION @publish(p_name text, p_claim uuid, p_last bigint, p_tokens integer, p_value bytea) RETURNS "char" LANGUAGE plpgsql AS $$
DECLARE
  l @lock := @open(p_name, false, false);
BEGIN
  IF l.mode = 'X' THEN
    UPDATE @lock SET value = p_value
      WHERE name = p_name AND claim = p_claim AND counter = p_last AND tokens = p_tokens AND ends > @CLOCK;
  ELSE
    UPDATE @hold SET value = p_value
      WHERE name = p_name AND claim = p_claim AND last = p_last AND tokens = p_tokens AND ends > @CLOCK;
  END IF;
  IF NOT FOUND THEN
    RETURN '0';
  END IF;
  PERFORM @tell_watchers(p_name);
  RETURN '1';
END $$;

-- Takes the lock from this claim, or from all who hold it. From how many.
CREATE FUNCTION @break(p_name text, p_claim uuid, p_known_epoch bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  l @lock := @open(p_name, false, false);
  h @hold;
  n bigint := 0;
BEGIN
  IF l.name IS NULL THEN
    RETURN 0;
  END IF;
  l := @reap(l, NULL);
  l.broken := '{}';
  IF l.mode = 'X' AND (p_claim IS NULL OR l.claim = p_claim) THEN
    PERFORM @tell(l.instance, 'b ' || l.claim || ' ' || l.counter || ' ' || l.name);
    l.broken := ARRAY[l.claim];
    l := @let_go(l);
    n := 1;
  ELSIF l.used > 0 THEN
    FOR h IN DELETE FROM @hold WHERE name = p_name AND (p_claim IS NULL OR claim = p_claim) RETURNING * LOOP
      PERFORM @tell(h.instance, 'b ' || h.claim || ' ' || h.last || ' ' || l.name);
      l.broken := l.broken || h.claim;
      l := @leave(l, h);
      n := n + 1;
    END LOOP;
  END IF;
  IF n > 0 AND l.mode = '-' THEN
    l.mode := 'B';
  END IF;
  PERFORM @settle(l, p_known_epoch);
  RETURN n;
END $$;

-- Asks this claim, or all who hold the lock, to give it back. How many.
CREATE FUNCTION @revoke(p_name text, p_claim uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  l @lock := @open(p_name, false, false);
  h @hold;
  n bigint := 0;
BEGIN
  IF l.mode = 'X' AND l.ends > @CLOCK AND (p_claim IS NULL OR l.claim = p_claim) THEN
    UPDATE @lock SET asked = true WHERE name = p_name;
    PERFORM @tell(l.instance, 'a ' || l.claim || ' ' || l.name);
    n := 1;
  ELSIF l.used > 0 THEN
    FOR h IN UPDATE @hold SET asked = true
      WHERE name = p_name AND ends > @CLOCK AND (p_claim IS NULL OR claim = p_claim) RETURNING * LOOP
      PERFORM @tell(h.instance, 'a ' || h.claim || ' ' || l.name);
      n := n + 1;
    END LOOP;
  END IF;
  RETURN n;
END $$;

-- Opens the epoch of this incarnation of the store. `p_means`: grace begins a new one with a grace, off without; new ends a grace, since an
-- operator says that the store is new.
CREATE FUNCTION @open_epoch(p_fresh bigint, p_means text, OUT id bigint, OUT no_grants_before bigint) LANGUAGE plpgsql AS $$
DECLARE
  now bigint;
  is_same boolean;
BEGIN
  LOOP
    SELECT s.id, s.no_grants_before, s.xmin = s.written_by AND s.started = pg_catalog.pg_postmaster_start_time()
      INTO id, no_grants_before, is_same FROM @epoch AS s FOR NO KEY UPDATE;
    EXIT WHEN FOUND;
    INSERT INTO @epoch VALUES (true, 0, 0, '-infinity', '0') ON CONFLICT DO NOTHING;
  END LOOP;
  now := @CLOCK;
  IF is_same AND (p_means <> 'new' OR no_grants_before <= now) THEN
    RETURN;
  END IF;
  IF NOT is_same THEN
    id := p_fresh;
  END IF;
  no_grants_before := CASE p_means WHEN 'grace' THEN now + (SELECT m.max_ttl FROM @meta AS m) ELSE now END;
  DELETE FROM @epoch;
  INSERT INTO @epoch VALUES (
    true, id, no_grants_before, pg_catalog.pg_postmaster_start_time(), pg_catalog.pg_current_xact_id()::xid
  );
END $$;

-- Removes what nobody has used for an hour: a lock that is not known goes on at the clock. How many locks.
CREATE FUNCTION @collect(p_most integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
BEGIN
  DELETE FROM @lock WHERE name IN (
    SELECT name FROM @lock WHERE idle AND since < @CLOCK - 3600000000 LIMIT p_most FOR UPDATE SKIP LOCKED
  ) AND idle;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END $$;
