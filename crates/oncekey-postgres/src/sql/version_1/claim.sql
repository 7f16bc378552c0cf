-- What a claim on a row in this state comes to.
CREATE FUNCTION {fn}_verdict(
    r {table}, p_state text, p_attempt bytea, p_algorithm bigint, p_fingerprint bytea,
    p_take_over boolean, p_tell boolean
) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN p_state IS NULL THEN CASE r.format WHEN 1 THEN 'corrupt' ELSE 'newer' END
        WHEN p_state = 'retired' THEN CASE
            WHEN r.attempt = p_attempt THEN 'spent'
            WHEN p_tell THEN 'retired'
            ELSE 'acquired'
        END
        WHEN r.fingerprint_algorithm <> p_algorithm OR r.fingerprint <> p_fingerprint THEN 'mismatch'
        WHEN p_state = 'completed' THEN 'replay'
        WHEN r.attempt = p_attempt THEN CASE
            WHEN p_state IN ('released', 'gave_up') THEN 'spent'
            ELSE 'acquired'
        END
        WHEN p_state = 'released' THEN 'acquired'
        WHEN p_state = 'live' THEN 'busy'
        WHEN p_take_over THEN 'acquired'
        ELSE 'interrupted'
    END
$$;

CREATE FUNCTION {fn}_claim(
    p_key bytea, p_attempt bytea, p_algorithm bigint, p_fingerprint bytea, p_lease bigint,
    p_hold bigint, p_take_over boolean, p_tell boolean, p_durable boolean, p_patience text,
    OUT outcome text, OUT token bigint, OUT number bigint, OUT time_left bigint,
    OUT previous_cause text, OUT previous_token bigint, OUT content bytea, OUT xact text
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    r {table};
    v_before timestamptz;
    v_late boolean;
    v_now timestamptz;
    v_deadline timestamptz;
    v_forget_at timestamptz;
    v_state text;
    v_own boolean;
    v_patience text;
    v_begun boolean;
    v_lock boolean := false;
    v_keep boolean;
    v_misses int;
BEGIN
    -- Few expressions on the way of a new key: each is set up anew in each transaction, which takes longer
    -- than to evaluate it.
    IF p_patience IS NOT NULL
        OR (p_durable AND current_setting('synchronous_commit') IN ('off', 'local', 'remote_write'))
    THEN
        v_patience := current_setting('lock_timeout');
        v_begun := {fn}_begin(p_durable, p_patience);
    END IF;
    <<decide>>
    LOOP
        -- A new key, for most claims. On a known one this writes nothing.
        v_before := clock_timestamp();
        INSERT INTO {table} AS t (
            key, format, status, fingerprint_algorithm, fingerprint, attempt, token, number,
            deadline, forget_at, sweep_at
        ) VALUES (
            p_key, 1, 'in_progress', p_algorithm, p_fingerprint, p_attempt, {fn}_micros(v_before), 1,
            {fn}_later(v_before, p_lease), {fn}_later(v_before, p_lease + p_hold),
            -- As `sweep` says.
            CASE
                WHEN p_lease + p_hold >= 9007199254740991 - {fn}_micros(v_before)
                    THEN v_before + interval '24 hours'
                ELSE v_before + (p_lease + p_hold) * interval '1 microsecond'
            END
        ) ON CONFLICT DO NOTHING
        RETURNING
            'acquired', t.token, t.number, least(p_lease, 9007199254740991 - t.token),
            pg_current_xact_id()::text, clock_timestamp() - v_before > interval '10 milliseconds'
        INTO outcome, token, number, time_left, xact, v_late;
        IF FOUND AND NOT v_late AND v_patience IS NULL THEN
            RETURN;
        ELSIF FOUND THEN
            IF v_late THEN
                -- It has waited for somebody who then rolled back. The lease begins now.
                v_now := clock_timestamp();
                v_deadline := {fn}_later(v_now, p_lease);
                UPDATE {table} AS t SET
                    token = {fn}_micros(v_now),
                    deadline = v_deadline,
                    forget_at = {fn}_later(v_deadline, p_hold)
                WHERE t.key = p_key
                RETURNING t.token INTO token;
            END IF;
            EXIT decide;
        END IF;

        -- A refusal writes nothing, and so needs no lock: it is true of the row as it was read, if it is
        -- true by the time before and by the time after. (Above READ COMMITTED, the row is read as it was
        -- when the transaction began.) A grant needs the lock, and decides again.
        IF v_lock THEN
            SELECT t.* INTO r FROM {table} AS t WHERE t.key = p_key FOR UPDATE;
        ELSE
            SELECT t.* INTO r FROM {table} AS t WHERE t.key = p_key;
        END IF;
        IF NOT FOUND THEN
            -- It was removed in this moment, and is a new key now. Again and again: it is hidden from
            -- this role.
            v_misses := coalesce(v_misses, 0) + 1;
            CONTINUE decide WHEN v_misses < 100;
            RAISE EXCEPTION USING ERRCODE = 'OK002', MESSAGE = 'a row is there and cannot be seen';
        END IF;
        v_now := clock_timestamp();
        v_state := {fn}_state(r, v_now);
        IF NOT v_lock AND v_state IS DISTINCT FROM {fn}_state(r, now()) THEN
            v_lock := true;
            CONTINUE decide;
        END IF;
        v_own := r.attempt = p_attempt;
        outcome := {fn}_verdict(r, v_state, p_attempt, p_algorithm, p_fingerprint, p_take_over, p_tell);
        EXIT decide WHEN outcome <> 'acquired';
        IF NOT v_lock THEN
            v_lock := true;
            CONTINUE decide;
        END IF;

        v_deadline := {fn}_later(v_now, p_lease);
        IF v_own THEN
            -- The grant that an earlier copy of this claim got.
            v_deadline := greatest(r.deadline, v_deadline);
            UPDATE {table} AS t SET
                deadline = v_deadline,
                forget_at = greatest(t.forget_at, {fn}_later(v_deadline, p_hold))
            WHERE t.key = p_key
            RETURNING t.* INTO r;
        ELSE
            -- A takeover tells whom it replaces, and inherits what was saved.
            v_keep := v_state IN ('lapsed', 'gave_up');
            UPDATE {table} AS t SET
                status = 'in_progress',
                fingerprint_algorithm = p_algorithm,
                fingerprint = p_fingerprint,
                attempt = p_attempt,
                token = least(greatest(t.token + 1, {fn}_micros(v_now)), 9007199254740991),
                number = CASE v_state WHEN 'retired' THEN 1 ELSE least(t.number + 1, 4294967295) END,
                deadline = v_deadline,
                retained_until = NULL,
                forget_at = {fn}_later(v_deadline, p_hold),
                previous_cause = CASE WHEN v_keep THEN v_state END,
                previous_token = CASE WHEN v_keep THEN t.token END,
                progress_sequence = CASE WHEN v_keep AND t.progress IS NOT NULL THEN 0 END,
                progress = CASE WHEN v_keep THEN t.progress END,
                digest = NULL,
                value = NULL,
                sweep_at = least(t.sweep_at, {fn}_later(v_deadline, p_hold))
            WHERE t.key = p_key
            RETURNING t.* INTO r;
        END IF;
        EXIT decide;
    END LOOP;

    IF outcome = 'acquired' AND token IS NULL THEN
        token := r.token;
        number := r.number;
        time_left := greatest({fn}_micros(r.deadline) - {fn}_micros(v_now), 0);
        previous_cause := r.previous_cause;
        previous_token := r.previous_token;
        content := CASE WHEN r.previous_cause IS NOT NULL THEN r.progress END;
        xact := pg_current_xact_id()::text;
    ELSIF outcome = 'busy' THEN
        time_left := {fn}_micros(r.deadline) - {fn}_micros(v_now);
    ELSIF outcome = 'replay' THEN
        content := r.value;
    END IF;
    IF v_patience IS NOT NULL THEN
        -- What else is done in the transaction waits as it did before.
        v_patience := set_config('lock_timeout', v_patience, true);
    END IF;
END
$$;

