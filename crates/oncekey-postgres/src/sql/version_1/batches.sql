-- Many claims, on as many keys: each is answered as it would be alone, or not at all and is then to be
-- made alone. Only new keys are granted, and what is refused is refused without a lock. It waits for
-- nobody: after a millisecond it leaves out whose key another transaction is about to make known.
CREATE FUNCTION {fn}_claims(
    p_keys bytea[], p_attempts bytea[], p_algorithms bigint[], p_fingerprints bytea[],
    p_leases bigint[], p_holds bigint[], p_take_over bigint[], p_tell bigint[], p_durable boolean
) RETURNS TABLE (
    outcome text, token bigint, number bigint, time_left bigint, previous_cause text,
    previous_token bigint, content bytea, xact text, key bytea
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_begun boolean;
    v_count int := cardinality(p_keys);
    v_keys bytea[];
    v_tokens bigint[];
    v_times_left bigint[];
    v_half int := v_count / 2;
BEGIN
    v_begun := {fn}_begin(p_durable, '1ms');
    BEGIN
        -- Nothing is returned yet: what is returned stays so, also when the rows are rolled back.
        WITH granted AS (INSERT INTO {table} AS t (
            key, format, status, fingerprint_algorithm, fingerprint, attempt, token, number,
            deadline, forget_at, sweep_at
        ) SELECT
            c.key, 1, 'in_progress', c.algorithm, c.fingerprint, c.attempt, {fn}_micros(c.clock), 1,
            c.deadline, c.forget_at, {fn}_sweep(c.clock, c.forget_at)
        FROM (
            SELECT b.*, {fn}_later(b.deadline, b.hold) AS forget_at
            FROM (
                SELECT a.*, {fn}_later(a.clock, a.lease) AS deadline
                FROM (
                    SELECT i.*, clock_timestamp() AS clock
                    FROM unnest(p_keys, p_attempts, p_algorithms, p_fingerprints, p_leases, p_holds)
                        AS i(key, attempt, algorithm, fingerprint, lease, hold)
                    OFFSET 0
                ) AS a
                OFFSET 0
            ) AS b
            OFFSET 0
        ) AS c
        ON CONFLICT DO NOTHING
        RETURNING t.key, t.token, {fn}_micros(t.deadline) - t.token AS time_left)
        SELECT array_agg(g.key), array_agg(g.token), array_agg(g.time_left)
        INTO v_keys, v_tokens, v_times_left
        FROM granted AS g;
    EXCEPTION WHEN lock_not_available THEN
        -- One half at least waits for nobody, and of the other the same is true.
        IF v_count > 1 AND clock_timestamp() - now() < interval '20 milliseconds' THEN
            RETURN QUERY SELECT * FROM {fn}_claims(
                p_keys[:v_half], p_attempts[:v_half], p_algorithms[:v_half], p_fingerprints[:v_half],
                p_leases[:v_half], p_holds[:v_half], p_take_over[:v_half], p_tell[:v_half], p_durable
            );
            v_half := v_half + 1;
            RETURN QUERY SELECT * FROM {fn}_claims(
                p_keys[v_half:], p_attempts[v_half:], p_algorithms[v_half:], p_fingerprints[v_half:],
                p_leases[v_half:], p_holds[v_half:], p_take_over[v_half:], p_tell[v_half:], p_durable
            );
        END IF;
        RETURN;
    END;
    RETURN QUERY SELECT
        'acquired', g.token, 1::bigint, g.time_left, NULL, NULL::bigint, NULL::bytea, NULL, g.key
    FROM unnest(v_keys, v_tokens, v_times_left) AS g(key, token, time_left);
    IF cardinality(v_keys) = v_count THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT
        v.outcome, NULL::bigint, NULL::bigint,
        CASE v.outcome WHEN 'busy' THEN {fn}_micros(k.deadline) - {fn}_micros(k.clock) END,
        NULL, NULL::bigint, CASE v.outcome WHEN 'replay' THEN k.value END, NULL, k.key
    FROM (
        SELECT k.*, {fn}_state(k.r, k.clock) AS state
        FROM (
            SELECT i.*, t.r, t.deadline, t.value, clock_timestamp() AS clock
            FROM unnest(p_keys, p_attempts, p_algorithms, p_fingerprints, p_take_over, p_tell)
                AS i(key, attempt, algorithm, fingerprint, take_over, tell),
            LATERAL (
                SELECT t AS r, t.attempt, t.deadline, t.value FROM {table} AS t WHERE t.key = i.key
                OFFSET 0
            ) AS t
            WHERE t.attempt <> i.attempt
            OFFSET 0
        ) AS k
        OFFSET 0
    ) AS k,
    LATERAL (
        SELECT {fn}_verdict(
            k.r, k.state, k.attempt, k.algorithm, k.fingerprint, k.take_over <> 0, k.tell <> 0
        ) AS outcome
    ) AS v
    WHERE k.state = {fn}_state(k.r, now()) AND v.outcome <> 'acquired';
END
$$;

-- Many results, of as many keys: returns the keys whose results are recorded. The others are to be
-- completed alone. A row that somebody has is not waited for.
CREATE FUNCTION {fn}_completions(
    p_keys bytea[], p_attempts bytea[], p_tokens bigint[], p_values bytea[], p_retentions bigint[],
    p_holds bigint[], p_durable boolean
) RETURNS TABLE (outcome text, key bytea) LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_begun boolean := {fn}_begin(p_durable, '1ms');
    v_now timestamptz := clock_timestamp();
    v_rows tid[];
    v_keys bytea[];
    v_values bytea[];
    v_until timestamptz[];
    v_holds bigint[];
BEGIN
    -- One look for each key, whatever is known of the size of the table.
    SELECT array_agg(l.ctid), array_agg(i.key), array_agg(i.value),
        array_agg({fn}_later(v_now, i.retention)), array_agg(i.hold)
    INTO v_rows, v_keys, v_values, v_until, v_holds
    FROM unnest(p_keys, p_attempts, p_tokens, p_values, p_retentions, p_holds)
        AS i(key, attempt, token, value, retention, hold),
    LATERAL (
        SELECT t.ctid, {fn}_state(t, v_now) AS state FROM {table} AS t
        WHERE t.key = i.key AND t.attempt = i.attempt AND t.token = i.token
        FOR UPDATE SKIP LOCKED
    ) AS l
    WHERE l.state IN ('live', 'lapsed', 'gave_up', 'released');
    RETURN QUERY SELECT * FROM {fn}_record(v_rows, v_keys, v_values, v_until, v_holds, v_now);
END
$$;

-- Records results in rows that are locked already, and found by their places.
CREATE FUNCTION {fn}_record(
    p_rows tid[], p_keys bytea[], p_values bytea[], p_until timestamptz[], p_holds bigint[],
    p_now timestamptz
) RETURNS TABLE (outcome text, key bytea) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_indexscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    r record;
BEGIN
    FOR r IN
        UPDATE {table} AS t SET
            status = 'completed',
            deadline = NULL,
            retained_until = c.retained_until,
            forget_at = c.forget_at,
            previous_cause = NULL,
            previous_token = NULL,
            progress_sequence = NULL,
            progress = NULL,
            value = c.value,
            digest = NULL,
            sweep_at = least(t.sweep_at, c.forget_at)
        FROM (
            SELECT i.*, {fn}_later(i.retained_until, i.hold) AS forget_at
            FROM unnest(p_rows, p_keys, p_values, p_until, p_holds)
                AS i(place, key, value, retained_until, hold)
            OFFSET 0
        ) AS c
        WHERE t.ctid = c.place AND t.key = c.key
        RETURNING t.key, t.watched_until
    LOOP
        outcome := 'applied';
        key := r.key;
        RETURN NEXT;
        IF r.watched_until > p_now THEN
            PERFORM {fn}_ended(r.key);
        END IF;
    END LOOP;
END
$$;

INSERT INTO {table_meta} (version) VALUES (1);
