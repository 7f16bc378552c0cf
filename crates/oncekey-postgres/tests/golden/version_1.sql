-- Tables and functions of oncekey, schema version 1.
--
-- A row is a record. Times are by this server's clock; `infinity` means never.
CREATE TABLE "public"."oncekey" (
    key bytea NOT NULL PRIMARY KEY,
    -- The meaning of a row. Another number than 1 is a newer oncekey's.
    format smallint NOT NULL,
    status text NOT NULL,
    fingerprint_algorithm smallint NOT NULL,
    fingerprint bytea NOT NULL,
    attempt bytea NOT NULL,
    token bigint NOT NULL,
    number bigint NOT NULL,
    deadline timestamptz,
    retained_until timestamptz,
    forget_at timestamptz NOT NULL,
    previous_cause text,
    previous_token bigint,
    progress_sequence bigint,
    progress bytea,
    digest bytea,
    value bytea,
    -- No part of the record. Purging looks at a row no sooner than this, and `forget_at` is no sooner
    -- either. It is seldom written, so that most updates touch no index.
    sweep_at timestamptz NOT NULL,
    -- No part of the record. Until then the end of an attempt is notified.
    watched_until timestamptz
-- Each row is inserted and then updated: with room on its page, that touches no index. There are no checks
-- here, because the server reads them anew for each statement; whoever reads a row checks it.
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX oncekey_sweep_at ON "public"."oncekey" (sweep_at);

CREATE TABLE "public".oncekey_meta (
    version integer NOT NULL PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- Functions of one expression, in SQL: the server puts them into the statements that use them, as long as
-- no argument is `clock_timestamp()` or long.

-- A time as microseconds since 1970, at most 2^53 - 1, which is never.
CREATE FUNCTION "public".oncekey_v1_micros(p_time timestamptz) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN p_time = 'infinity' THEN 9007199254740991
        ELSE (extract(epoch FROM p_time) * 1000000)::bigint
    END
$$;

-- The time so many microseconds later, never later than never.
CREATE FUNCTION "public".oncekey_v1_later(p_time timestamptz, p_micros bigint) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN p_micros >= 9007199254740991 - extract(epoch FROM p_time) * 1000000 THEN 'infinity'
        ELSE p_time + p_micros * interval '1 microsecond'
    END
$$;

-- When purging first looks at a row that is claimed now. Where an interrupted key is never forgotten, its
-- result is: by a look a day later, completing it moves nothing in the index.
CREATE FUNCTION "public".oncekey_v1_sweep(p_now timestamptz, p_forget_at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE p_forget_at WHEN 'infinity' THEN p_now + interval '24 hours' ELSE p_forget_at END
$$;

-- The state of a row at a time; null for a row that is no record.
CREATE FUNCTION "public".oncekey_v1_state(r "public"."oncekey", p_now timestamptz) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN r.format <> 1 OR octet_length(r.fingerprint) <> 32 OR octet_length(r.attempt) <> 16
            OR octet_length(r.digest) <> 32
            OR r.token NOT BETWEEN 0 AND 9007199254740991
            OR r.number NOT BETWEEN 1 AND 4294967295
            OR r.previous_cause NOT IN ('lapsed', 'gave_up')
            OR num_nonnulls(r.previous_cause, r.previous_token) = 1
            OR num_nonnulls(r.progress_sequence, r.progress) = 1 THEN NULL
        WHEN r.status = 'in_progress' THEN
            CASE WHEN p_now < r.deadline THEN 'live' WHEN p_now >= r.deadline THEN 'lapsed' END
        WHEN r.status IN ('gave_up', 'released') THEN r.status
        WHEN r.status = 'completed' AND num_nonnulls(r.value, r.digest) = 1 THEN
            CASE
                WHEN p_now < r.retained_until THEN 'completed'
                WHEN p_now >= r.retained_until THEN 'retired'
            END
    END
$$;

-- Functions below are told not to scan the whole table: a plan that is made while the table is almost empty
-- may be in use when it is large.

-- What every command does first. With `p_durable`, its commit waits for the disk at least; a lock is
-- waited for as long as `p_patience` says, or as long as the session is set to.
CREATE FUNCTION "public".oncekey_v1_begin(p_durable boolean, p_patience text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_set text;
BEGIN
    IF p_durable
        AND current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
    THEN
        v_set := set_config('synchronous_commit', 'on', true);
    END IF;
    IF p_patience IS NOT NULL THEN
        v_set := set_config('lock_timeout', p_patience, true);
    END IF;
    RETURN true;
END
$$;

-- Tells those who wait for a key that its attempt ended.
CREATE FUNCTION "public".oncekey_v1_ended(p_key bytea) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('oncekey_c2900fe7a40d6b30', encode(substr(sha256(p_key), 1, 8), 'hex'));
    RETURN 'notified';
END
$$;

-- What a claim on a row in this state comes to.
CREATE FUNCTION "public".oncekey_v1_verdict(
    r "public"."oncekey", p_state text, p_attempt bytea, p_algorithm bigint, p_fingerprint bytea,
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

CREATE FUNCTION "public".oncekey_v1_claim(
    p_key bytea, p_attempt bytea, p_algorithm bigint, p_fingerprint bytea, p_lease bigint,
    p_hold bigint, p_take_over boolean, p_tell boolean, p_durable boolean, p_patience text,
    OUT outcome text, OUT token bigint, OUT number bigint, OUT time_left bigint,
    OUT previous_cause text, OUT previous_token bigint, OUT content bytea, OUT xact text
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    r "public"."oncekey";
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
        v_begun := "public".oncekey_v1_begin(p_durable, p_patience);
    END IF;
    <<decide>>
    LOOP
        -- A new key, for most claims. On a known one this writes nothing.
        v_before := clock_timestamp();
        INSERT INTO "public"."oncekey" AS t (
            key, format, status, fingerprint_algorithm, fingerprint, attempt, token, number,
            deadline, forget_at, sweep_at
        ) VALUES (
            p_key, 1, 'in_progress', p_algorithm, p_fingerprint, p_attempt, "public".oncekey_v1_micros(v_before), 1,
            "public".oncekey_v1_later(v_before, p_lease), "public".oncekey_v1_later(v_before, p_lease + p_hold),
            -- As `sweep` says.
            CASE
                WHEN p_lease + p_hold >= 9007199254740991 - "public".oncekey_v1_micros(v_before)
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
                v_deadline := "public".oncekey_v1_later(v_now, p_lease);
                UPDATE "public"."oncekey" AS t SET
                    token = "public".oncekey_v1_micros(v_now),
                    deadline = v_deadline,
                    forget_at = "public".oncekey_v1_later(v_deadline, p_hold)
                WHERE t.key = p_key
                RETURNING t.token INTO token;
            END IF;
            EXIT decide;
        END IF;

        -- A refusal writes nothing, and so needs no lock: it is true of the row as it was read, if it is
        -- true by the time before and by the time after. (Above READ COMMITTED, the row is read as it was
        -- when the transaction began.) A grant needs the lock, and decides again.
        IF v_lock THEN
            SELECT t.* INTO r FROM "public"."oncekey" AS t WHERE t.key = p_key FOR UPDATE;
        ELSE
            SELECT t.* INTO r FROM "public"."oncekey" AS t WHERE t.key = p_key;
        END IF;
        IF NOT FOUND THEN
            -- It was removed in this moment, and is a new key now. Again and again: it is hidden from
            -- this role.
            v_misses := coalesce(v_misses, 0) + 1;
            CONTINUE decide WHEN v_misses < 100;
            RAISE EXCEPTION USING ERRCODE = 'OK002', MESSAGE = 'a row is there and cannot be seen';
        END IF;
        v_now := clock_timestamp();
        v_state := "public".oncekey_v1_state(r, v_now);
        IF NOT v_lock AND v_state IS DISTINCT FROM "public".oncekey_v1_state(r, now()) THEN
            v_lock := true;
            CONTINUE decide;
        END IF;
        v_own := r.attempt = p_attempt;
        outcome := "public".oncekey_v1_verdict(r, v_state, p_attempt, p_algorithm, p_fingerprint, p_take_over, p_tell);
        EXIT decide WHEN outcome <> 'acquired';
        IF NOT v_lock THEN
            v_lock := true;
            CONTINUE decide;
        END IF;

        v_deadline := "public".oncekey_v1_later(v_now, p_lease);
        IF v_own THEN
            -- The grant that an earlier copy of this claim got.
            v_deadline := greatest(r.deadline, v_deadline);
            UPDATE "public"."oncekey" AS t SET
                deadline = v_deadline,
                forget_at = greatest(t.forget_at, "public".oncekey_v1_later(v_deadline, p_hold))
            WHERE t.key = p_key
            RETURNING t.* INTO r;
        ELSE
            -- A takeover tells whom it replaces, and inherits what was saved.
            v_keep := v_state IN ('lapsed', 'gave_up');
            UPDATE "public"."oncekey" AS t SET
                status = 'in_progress',
                fingerprint_algorithm = p_algorithm,
                fingerprint = p_fingerprint,
                attempt = p_attempt,
                token = least(greatest(t.token + 1, "public".oncekey_v1_micros(v_now)), 9007199254740991),
                number = CASE v_state WHEN 'retired' THEN 1 ELSE least(t.number + 1, 4294967295) END,
                deadline = v_deadline,
                retained_until = NULL,
                forget_at = "public".oncekey_v1_later(v_deadline, p_hold),
                previous_cause = CASE WHEN v_keep THEN v_state END,
                previous_token = CASE WHEN v_keep THEN t.token END,
                progress_sequence = CASE WHEN v_keep AND t.progress IS NOT NULL THEN 0 END,
                progress = CASE WHEN v_keep THEN t.progress END,
                digest = NULL,
                value = NULL,
                sweep_at = least(t.sweep_at, "public".oncekey_v1_later(v_deadline, p_hold))
            WHERE t.key = p_key
            RETURNING t.* INTO r;
        END IF;
        EXIT decide;
    END LOOP;

    IF outcome = 'acquired' AND token IS NULL THEN
        token := r.token;
        number := r.number;
        time_left := greatest("public".oncekey_v1_micros(r.deadline) - "public".oncekey_v1_micros(v_now), 0);
        previous_cause := r.previous_cause;
        previous_token := r.previous_token;
        content := CASE WHEN r.previous_cause IS NOT NULL THEN r.progress END;
        xact := pg_current_xact_id()::text;
    ELSIF outcome = 'busy' THEN
        time_left := "public".oncekey_v1_micros(r.deadline) - "public".oncekey_v1_micros(v_now);
    ELSIF outcome = 'replay' THEN
        content := r.value;
    END IF;
    IF v_patience IS NOT NULL THEN
        -- What else is done in the transaction waits as it did before.
        v_patience := set_config('lock_timeout', v_patience, true);
    END IF;
END
$$;

-- Locks the row of a command that names an attempt. `outcome` is why the command is refused, and null
-- when it is up to its own rules. The time is read after the wait for the lock.
CREATE FUNCTION "public".oncekey_v1_own(
    p_key bytea, p_attempt bytea, p_token bigint, p_durable boolean, p_patience text,
    OUT outcome text, OUT r "public"."oncekey", OUT state text, OUT now timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_begun boolean;
BEGIN
    v_begun := "public".oncekey_v1_begin(p_durable, p_patience);
    SELECT t.* INTO r FROM "public"."oncekey" AS t WHERE t.key = p_key FOR UPDATE;
    IF NOT FOUND THEN
        outcome := 'gone';
        RETURN;
    END IF;
    now := clock_timestamp();
    state := "public".oncekey_v1_state(r, now);
    outcome := CASE
        WHEN r.format <> 1 THEN 'newer'
        WHEN state IS NULL THEN 'corrupt'
        WHEN r.attempt <> p_attempt OR r.token <> p_token THEN 'lost'
    END;
END
$$;

CREATE FUNCTION "public".oncekey_v1_renew(
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
    o := "public".oncekey_v1_own(p_key, p_attempt, p_token, p_durable, p_patience);
    IF o.outcome IS NOT NULL THEN
        RETURN o.outcome;
    END IF;
    IF o.state NOT IN ('live', 'lapsed') THEN
        RETURN 'lost';
    END IF;
    v_deadline := greatest((o.r).deadline, "public".oncekey_v1_later(o.now, p_lease));
    IF (o.r).forget_at <> 'infinity' THEN
        -- What is remembered beyond the deadline moves with it.
        v_hold := greatest("public".oncekey_v1_micros((o.r).forget_at) - "public".oncekey_v1_micros((o.r).deadline), 0);
        v_forget_at := greatest((o.r).forget_at, "public".oncekey_v1_later(v_deadline, v_hold));
    END IF;
    v_save := coalesce(p_sequence > coalesce((o.r).progress_sequence, 0), false);
    UPDATE "public"."oncekey" AS t SET
        deadline = v_deadline,
        forget_at = v_forget_at,
        progress_sequence = CASE WHEN v_save THEN p_sequence ELSE t.progress_sequence END,
        progress = CASE WHEN v_save THEN p_progress ELSE t.progress END
    WHERE t.key = p_key;
    RETURN 'applied';
END
$$;

-- Records a result, unless there is one. Of a result that is not to be kept, the digest comes alone.
CREATE FUNCTION "public".oncekey_v1_finish(
    r "public"."oncekey", p_now timestamptz, p_value bytea, p_digest bytea, p_retention bigint, p_hold bigint
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
    v_until := "public".oncekey_v1_later(p_now, p_retention);
    v_forget_at := "public".oncekey_v1_later(v_until, p_hold);
    UPDATE "public"."oncekey" AS t SET
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
        PERFORM "public".oncekey_v1_ended((r).key);
    END IF;
    RETURN 'applied';
END
$$;

CREATE FUNCTION "public".oncekey_v1_release(r "public"."oncekey", p_now timestamptz, p_hold bigint) RETURNS text
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_forget_at timestamptz := "public".oncekey_v1_later(p_now, p_hold);
BEGIN
    UPDATE "public"."oncekey" AS t SET
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
        PERFORM "public".oncekey_v1_ended((r).key);
    END IF;
    RETURN 'applied';
END
$$;

-- With `p_or_fail`, a refusal is an error, so that the transaction around it can only roll back.
CREATE FUNCTION "public".oncekey_v1_complete(
    p_key bytea, p_attempt bytea, p_token bigint, p_value bytea, p_digest bytea, p_retention bigint,
    p_hold bigint, p_or_fail boolean, p_durable boolean, p_patience text
) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    o record;
    v_outcome text;
    v_begun boolean;
    v_now timestamptz := clock_timestamp();
    v_until timestamptz := "public".oncekey_v1_later(v_now, p_retention);
    v_forget_at timestamptz := "public".oncekey_v1_later(v_now, p_retention + p_hold);
    v_watched boolean;
    v_late boolean;
BEGIN
    -- Few expressions here, as in a claim.
    IF p_patience IS NOT NULL
        OR (p_durable AND current_setting('synchronous_commit') IN ('off', 'local', 'remote_write'))
    THEN
        v_begun := "public".oncekey_v1_begin(p_durable, p_patience);
    END IF;
    -- As it mostly is: there is no result yet, and the row is free.
    UPDATE "public"."oncekey" AS t SET
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
        AND "public".oncekey_v1_state(t, v_now) IS NOT NULL
    RETURNING
        coalesce(t.watched_until > v_now, false), clock_timestamp() - v_now > interval '10 milliseconds'
    INTO v_watched, v_late;
    IF FOUND AND NOT v_watched AND NOT v_late THEN
        RETURN 'applied';
    ELSIF FOUND THEN
        IF v_late THEN
            -- It has waited for the row. The retention begins now.
            v_now := clock_timestamp();
            v_until := "public".oncekey_v1_later(v_now, p_retention);
            v_forget_at := "public".oncekey_v1_later(v_until, p_hold);
            UPDATE "public"."oncekey" AS t SET
                retained_until = v_until,
                forget_at = v_forget_at,
                sweep_at = least(t.sweep_at, v_forget_at)
            WHERE t.key = p_key;
        END IF;
        IF v_watched THEN
            v_outcome := "public".oncekey_v1_ended(p_key);
        END IF;
        RETURN 'applied';
    END IF;
    o := "public".oncekey_v1_own(p_key, p_attempt, p_token, p_durable, p_patience);
    v_outcome := o.outcome;
    IF v_outcome IS NULL THEN
        v_outcome := "public".oncekey_v1_finish(o.r, o.now, p_value, p_digest, p_retention, p_hold);
    END IF;
    IF p_or_fail AND v_outcome <> 'applied' THEN
        RAISE EXCEPTION USING ERRCODE = 'OK001', MESSAGE = v_outcome;
    END IF;
    RETURN v_outcome;
END
$$;

CREATE FUNCTION "public".oncekey_v1_abandon(
    p_key bytea, p_attempt bytea, p_token bigint, p_nothing_done boolean, p_hold bigint,
    p_durable boolean, p_patience text
) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    o record;
BEGIN
    o := "public".oncekey_v1_own(p_key, p_attempt, p_token, p_durable, p_patience);
    IF o.outcome IS NOT NULL THEN
        RETURN o.outcome;
    ELSIF o.state IN ('live', 'lapsed', 'gave_up') AND p_nothing_done AND (o.r).progress IS NULL
    THEN
        RETURN "public".oncekey_v1_release(o.r, o.now, p_hold);
    ELSIF o.state = 'gave_up' OR (o.state = 'released' AND p_nothing_done) THEN
        RETURN 'applied';
    ELSIF o.state IN ('live', 'lapsed') THEN
        -- Whoever saved progress did something, whatever it says.
        UPDATE "public"."oncekey" AS t SET status = 'gave_up', deadline = NULL WHERE t.key = p_key;
        IF (o.r).watched_until > o.now THEN
            PERFORM "public".oncekey_v1_ended(p_key);
        END IF;
        RETURN 'applied';
    END IF;
    RETURN 'lost';
END
$$;

CREATE FUNCTION "public".oncekey_v1_settle(
    p_key bytea, p_attempt bytea, p_token bigint, p_done boolean, p_value bytea, p_digest bytea,
    p_retention bigint, p_hold bigint, p_durable boolean, p_patience text
) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    o record;
BEGIN
    o := "public".oncekey_v1_own(p_key, p_attempt, p_token, p_durable, p_patience);
    IF o.outcome IS NOT NULL THEN
        RETURN o.outcome;
    ELSIF o.state = 'live' THEN
        RETURN 'busy';
    ELSIF p_done THEN
        RETURN "public".oncekey_v1_finish(o.r, o.now, p_value, p_digest, p_retention, p_hold);
    ELSIF o.state IN ('lapsed', 'gave_up') THEN
        RETURN "public".oncekey_v1_release(o.r, o.now, p_hold);
    END IF;
    RETURN CASE o.state WHEN 'released' THEN 'applied' ELSE 'lost' END;
END
$$;

-- Without an attempt and a token it removes whatever is there, also what is no record.
CREATE FUNCTION "public".oncekey_v1_evict(
    p_key bytea, p_attempt bytea, p_token bigint, p_force boolean, p_durable boolean, p_patience text
) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    o record;
BEGIN
    o := "public".oncekey_v1_own(p_key, p_attempt, p_token, p_durable, p_patience);
    IF o.outcome IN ('corrupt', 'newer') AND p_attempt IS NULL AND p_token IS NULL THEN
        o.outcome := NULL;
    END IF;
    IF o.outcome IS NOT NULL THEN
        RETURN o.outcome;
    ELSIF o.state = 'live' AND NOT p_force THEN
        RETURN 'busy';
    END IF;
    DELETE FROM "public"."oncekey" AS t WHERE t.key = p_key;
    IF (o.r).watched_until > o.now THEN
        PERFORM "public".oncekey_v1_ended((o.r).key);
    END IF;
    RETURN 'applied';
END
$$;

-- Looks at `p_limit` rows at most, and waits for none. What is over is removed; what is not is looked
-- at again when it may be.
CREATE FUNCTION "public".oncekey_v1_purge(p_limit bigint, OUT removed bigint, OUT looked_at bigint)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    r "public"."oncekey";
    v_now timestamptz := clock_timestamp();
    v_state text;
BEGIN
    removed := 0;
    looked_at := 0;
    FOR r IN
        SELECT t.* FROM "public"."oncekey" AS t WHERE t.sweep_at <= v_now
        ORDER BY t.sweep_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    LOOP
        looked_at := looked_at + 1;
        v_state := "public".oncekey_v1_state(r, v_now);
        IF r.forget_at <= v_now AND v_state NOT IN ('live', 'completed') THEN
            DELETE FROM "public"."oncekey" AS t WHERE t.key = r.key;
            removed := removed + 1;
        ELSE
            UPDATE "public"."oncekey" AS t
            SET sweep_at = CASE
                WHEN v_state IS NULL OR t.forget_at <= v_now THEN v_now + interval '1 hour'
                ELSE t.forget_at
            END
            WHERE t.key = r.key;
        END IF;
    END LOOP;
END
$$;

-- Lets the end of the attempt on a key be notified for an hour. A row that is being written is left
-- alone: whoever waits polls too.
CREATE FUNCTION "public".oncekey_v1_watch(p_key bytea) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_watched timestamptz;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT coalesce(t.watched_until, '-infinity') INTO v_watched FROM "public"."oncekey" AS t
    WHERE t.key = p_key FOR UPDATE SKIP LOCKED;
    IF v_watched < clock_timestamp() + interval '30 minutes' THEN
        UPDATE "public"."oncekey" AS t SET watched_until = clock_timestamp() + interval '1 hour'
        WHERE t.key = p_key;
    END IF;
END
$$;

-- Many claims, on as many keys: each is answered as it would be alone, or not at all and is then to be
-- made alone. Only new keys are granted, and what is refused is refused without a lock. It waits for
-- nobody: after a millisecond it leaves out whose key another transaction is about to make known.
CREATE FUNCTION "public".oncekey_v1_claims(
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
    v_begun := "public".oncekey_v1_begin(p_durable, '1ms');
    BEGIN
        -- Nothing is returned yet: what is returned stays so, also when the rows are rolled back.
        WITH granted AS (INSERT INTO "public"."oncekey" AS t (
            key, format, status, fingerprint_algorithm, fingerprint, attempt, token, number,
            deadline, forget_at, sweep_at
        ) SELECT
            c.key, 1, 'in_progress', c.algorithm, c.fingerprint, c.attempt, "public".oncekey_v1_micros(c.clock), 1,
            c.deadline, c.forget_at, "public".oncekey_v1_sweep(c.clock, c.forget_at)
        FROM (
            SELECT b.*, "public".oncekey_v1_later(b.deadline, b.hold) AS forget_at
            FROM (
                SELECT a.*, "public".oncekey_v1_later(a.clock, a.lease) AS deadline
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
        RETURNING t.key, t.token, "public".oncekey_v1_micros(t.deadline) - t.token AS time_left)
        SELECT array_agg(g.key), array_agg(g.token), array_agg(g.time_left)
        INTO v_keys, v_tokens, v_times_left
        FROM granted AS g;
    EXCEPTION WHEN lock_not_available THEN
        -- One half at least waits for nobody, and of the other the same is true.
        IF v_count > 1 AND clock_timestamp() - now() < interval '20 milliseconds' THEN
            RETURN QUERY SELECT * FROM "public".oncekey_v1_claims(
                p_keys[:v_half], p_attempts[:v_half], p_algorithms[:v_half], p_fingerprints[:v_half],
                p_leases[:v_half], p_holds[:v_half], p_take_over[:v_half], p_tell[:v_half], p_durable
            );
            v_half := v_half + 1;
            RETURN QUERY SELECT * FROM "public".oncekey_v1_claims(
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
        CASE v.outcome WHEN 'busy' THEN "public".oncekey_v1_micros(k.deadline) - "public".oncekey_v1_micros(k.clock) END,
        NULL, NULL::bigint, CASE v.outcome WHEN 'replay' THEN k.value END, NULL, k.key
    FROM (
        SELECT k.*, "public".oncekey_v1_state(k.r, k.clock) AS state
        FROM (
            SELECT i.*, t.r, t.deadline, t.value, clock_timestamp() AS clock
            FROM unnest(p_keys, p_attempts, p_algorithms, p_fingerprints, p_take_over, p_tell)
                AS i(key, attempt, algorithm, fingerprint, take_over, tell),
            LATERAL (
                SELECT t AS r, t.attempt, t.deadline, t.value FROM "public"."oncekey" AS t WHERE t.key = i.key
                OFFSET 0
            ) AS t
            WHERE t.attempt <> i.attempt
            OFFSET 0
        ) AS k
        OFFSET 0
    ) AS k,
    LATERAL (
        SELECT "public".oncekey_v1_verdict(
            k.r, k.state, k.attempt, k.algorithm, k.fingerprint, k.take_over <> 0, k.tell <> 0
        ) AS outcome
    ) AS v
    WHERE k.state = "public".oncekey_v1_state(k.r, now()) AND v.outcome <> 'acquired';
END
$$;

-- Many results, of as many keys: returns the keys whose results are recorded. The others are to be
-- completed alone. A row that somebody has is not waited for.
CREATE FUNCTION "public".oncekey_v1_completions(
    p_keys bytea[], p_attempts bytea[], p_tokens bigint[], p_values bytea[], p_retentions bigint[],
    p_holds bigint[], p_durable boolean
) RETURNS TABLE (outcome text, key bytea) LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_begun boolean := "public".oncekey_v1_begin(p_durable, '1ms');
    v_now timestamptz := clock_timestamp();
    v_rows tid[];
    v_keys bytea[];
    v_values bytea[];
    v_until timestamptz[];
    v_holds bigint[];
BEGIN
    -- One look for each key, whatever is known of the size of the table.
    SELECT array_agg(l.ctid), array_agg(i.key), array_agg(i.value),
        array_agg("public".oncekey_v1_later(v_now, i.retention)), array_agg(i.hold)
    INTO v_rows, v_keys, v_values, v_until, v_holds
    FROM unnest(p_keys, p_attempts, p_tokens, p_values, p_retentions, p_holds)
        AS i(key, attempt, token, value, retention, hold),
    LATERAL (
        SELECT t.ctid, "public".oncekey_v1_state(t, v_now) AS state FROM "public"."oncekey" AS t
        WHERE t.key = i.key AND t.attempt = i.attempt AND t.token = i.token
        FOR UPDATE SKIP LOCKED
    ) AS l
    WHERE l.state IN ('live', 'lapsed', 'gave_up', 'released');
    RETURN QUERY SELECT * FROM "public".oncekey_v1_record(v_rows, v_keys, v_values, v_until, v_holds, v_now);
END
$$;

-- Records results in rows that are locked already, and found by their places.
CREATE FUNCTION "public".oncekey_v1_record(
    p_rows tid[], p_keys bytea[], p_values bytea[], p_until timestamptz[], p_holds bigint[],
    p_now timestamptz
) RETURNS TABLE (outcome text, key bytea) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_indexscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    r record;
BEGIN
    FOR r IN
        UPDATE "public"."oncekey" AS t SET
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
            SELECT i.*, "public".oncekey_v1_later(i.retained_until, i.hold) AS forget_at
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
            PERFORM "public".oncekey_v1_ended(r.key);
        END IF;
    END LOOP;
END
$$;

INSERT INTO "public".oncekey_meta (version) VALUES (1);
