-- Locks the row of a command that names an attempt. `outcome` is why the command is refused, and null
-- when it is up to its own rules. The time is read after the wait for the lock.
CREATE FUNCTION {fn}_own(
    p_key bytea, p_attempt bytea, p_token bigint, p_durable boolean, p_patience text,
    OUT outcome text, OUT r {table}, OUT state text, OUT now timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_begun boolean;
BEGIN
    v_begun := {fn}_begin(p_durable, p_patience);
    SELECT t.* INTO r FROM {table} AS t WHERE t.key = p_key FOR UPDATE;
    IF NOT FOUND THEN
        outcome := 'gone';
        RETURN;
    END IF;
    now := clock_timestamp();
    state := {fn}_state(r, now);
    outcome := CASE
        WHEN r.format <> 1 THEN 'newer'
        WHEN state IS NULL THEN 'corrupt'
        WHEN r.attempt <> p_attempt OR r.token <> p_token THEN 'lost'
    END;
END
$$;

CREATE FUNCTION {fn}_renew(
    p_key bytea, p_attempt bytea, p_token bigint, p_lease bigint, p_sequence bigint, p_progress bytea,
    p_durable boolean, p_patience text
) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    o record;
    v_deadline timestamptz;
    v_hold bigint;
    v_forget_at timestamptz := 'infinity';
    v_save boolean;
BEGIN
    o := {fn}_own(p_key, p_attempt, p_token, p_durable, p_patience);
    IF o.outcome IS NOT NULL THEN
        RETURN o.outcome;
    END IF;
    IF o.state NOT IN ('live', 'lapsed') THEN
        RETURN 'lost';
    END IF;
    v_deadline := greatest((o.r).deadline, {fn}_later(o.now, p_lease));
    IF (o.r).forget_at <> 'infinity' THEN
        -- What is remembered beyond the deadline moves with it.
        v_hold := greatest({fn}_micros((o.r).forget_at) - {fn}_micros((o.r).deadline), 0);
        v_forget_at := greatest((o.r).forget_at, {fn}_later(v_deadline, v_hold));
    END IF;
    v_save := coalesce(p_sequence > coalesce((o.r).progress_sequence, 0), false);
    UPDATE {table} AS t SET
        deadline = v_deadline,
        forget_at = v_forget_at,
        progress_sequence = CASE WHEN v_save THEN p_sequence ELSE t.progress_sequence END,
        progress = CASE WHEN v_save THEN p_progress ELSE t.progress END
    WHERE t.key = p_key;
    RETURN 'applied';
END
$$;

-- Records a result, unless there is one. Of a result that is not to be kept, the digest comes alone.
CREATE FUNCTION {fn}_finish(
    r {table}, p_now timestamptz, p_value bytea, p_digest bytea, p_retention bigint, p_hold bigint
) RETURNS text LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_until timestamptz;
    v_forget_at timestamptz;
BEGIN
    IF r.status = 'completed' THEN
        RETURN CASE
            WHEN r.value = p_value OR r.digest = p_digest OR sha256(r.value) = p_digest
                OR r.digest = sha256(p_value) THEN 'applied'
            ELSE 'conflict'
        END;
    END IF;
    v_until := {fn}_later(p_now, p_retention);
    v_forget_at := {fn}_later(v_until, p_hold);
    UPDATE {table} AS t SET
        status = 'completed',
        deadline = NULL,
        retained_until = v_until,
        forget_at = v_forget_at,
        previous_cause = NULL,
        previous_token = NULL,
        progress_sequence = NULL,
        progress = NULL,
        value = p_value,
        digest = CASE WHEN p_value IS NULL THEN p_digest END,
        sweep_at = least(t.sweep_at, v_forget_at)
    WHERE t.key = r.key;
    IF (r).watched_until > p_now THEN
        PERFORM {fn}_ended((r).key);
    END IF;
    RETURN 'applied';
END
$$;

CREATE FUNCTION {fn}_release(r {table}, p_now timestamptz, p_hold bigint) RETURNS text
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_forget_at timestamptz := {fn}_later(p_now, p_hold);
BEGIN
    UPDATE {table} AS t SET
        status = 'released',
        deadline = NULL,
        forget_at = v_forget_at,
        previous_cause = NULL,
        previous_token = NULL,
        progress_sequence = NULL,
        progress = NULL,
        sweep_at = least(t.sweep_at, v_forget_at)
    WHERE t.key = r.key;
    IF (r).watched_until > p_now THEN
        PERFORM {fn}_ended((r).key);
    END IF;
    RETURN 'applied';
END
$$;

-- With `p_or_fail`, a refusal is an error, so that the transaction around it can only roll back.
CREATE FUNCTION {fn}_complete(
    p_key bytea, p_attempt bytea, p_token bigint, p_value bytea, p_digest bytea, p_retention bigint,
    p_hold bigint, p_or_fail boolean, p_durable boolean, p_patience text
) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    o record;
    v_outcome text;
    v_begun boolean;
    v_now timestamptz := clock_timestamp();
    v_until timestamptz := {fn}_later(v_now, p_retention);
    v_forget_at timestamptz := {fn}_later(v_now, p_retention + p_hold);
    v_watched boolean;
    v_late boolean;
BEGIN
    -- Few expressions here, as in a claim.
    IF p_patience IS NOT NULL
        OR (p_durable AND current_setting('synchronous_commit') IN ('off', 'local', 'remote_write'))
    THEN
        v_begun := {fn}_begin(p_durable, p_patience);
    END IF;
    -- As it mostly is: there is no result yet, and the row is free.
    UPDATE {table} AS t SET
        status = 'completed',
        deadline = NULL,
        retained_until = v_until,
        forget_at = v_forget_at,
        previous_cause = NULL,
        previous_token = NULL,
        progress_sequence = NULL,
        progress = NULL,
        value = p_value,
        digest = CASE WHEN p_value IS NULL THEN p_digest END,
        sweep_at = least(t.sweep_at, v_forget_at)
    WHERE t.key = p_key AND t.attempt = p_attempt AND t.token = p_token AND t.status <> 'completed'
        AND {fn}_state(t, v_now) IS NOT NULL
    RETURNING
        coalesce(t.watched_until > v_now, false), clock_timestamp() - v_now > interval '10 milliseconds'
    INTO v_watched, v_late;
    IF FOUND AND NOT v_watched AND NOT v_late THEN
        RETURN 'applied';
    ELSIF FOUND THEN
        IF v_late THEN
            -- It has waited for the row. The retention begins now.
            v_now := clock_timestamp();
            v_until := {fn}_later(v_now, p_retention);
            v_forget_at := {fn}_later(v_until, p_hold);
            UPDATE {table} AS t SET
                retained_until = v_until,
                forget_at = v_forget_at,
                sweep_at = least(t.sweep_at, v_forget_at)
            WHERE t.key = p_key;
        END IF;
        IF v_watched THEN
            v_outcome := {fn}_ended(p_key);
        END IF;
        RETURN 'applied';
    END IF;
    o := {fn}_own(p_key, p_attempt, p_token, p_durable, p_patience);
    v_outcome := o.outcome;
    IF v_outcome IS NULL THEN
        v_outcome := {fn}_finish(o.r, o.now, p_value, p_digest, p_retention, p_hold);
    END IF;
    IF p_or_fail AND v_outcome <> 'applied' THEN
        RAISE EXCEPTION USING ERRCODE = 'OK001', MESSAGE = v_outcome;
    END IF;
    RETURN v_outcome;
END
$$;

CREATE FUNCTION {fn}_abandon(
    p_key bytea, p_attempt bytea, p_token bigint, p_nothing_done boolean, p_hold bigint,
    p_durable boolean, p_patience text
) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    o record;
BEGIN
    o := {fn}_own(p_key, p_attempt, p_token, p_durable, p_patience);
    IF o.outcome IS NOT NULL THEN
        RETURN o.outcome;
    ELSIF o.state IN ('live', 'lapsed', 'gave_up') AND p_nothing_done AND (o.r).progress IS NULL
    THEN
        RETURN {fn}_release(o.r, o.now, p_hold);
    ELSIF o.state = 'gave_up' OR (o.state = 'released' AND p_nothing_done) THEN
        RETURN 'applied';
    ELSIF o.state IN ('live', 'lapsed') THEN
        -- Whoever saved progress did something, whatever it says.
        UPDATE {table} AS t SET status = 'gave_up', deadline = NULL WHERE t.key = p_key;
        IF (o.r).watched_until > o.now THEN
            PERFORM {fn}_ended(p_key);
        END IF;
        RETURN 'applied';
    END IF;
    RETURN 'lost';
END
$$;

