-- Tables and functions of oncekey, schema version 1.
--
-- A row is a record. Times are by this server's clock; `infinity` means never.
CREATE TABLE {table} (
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

CREATE INDEX {name}_sweep_at ON {table} (sweep_at);

CREATE TABLE {table_meta} (
    version integer NOT NULL PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- Functions of one expression, in SQL: the server puts them into the statements that use them, as long as
-- no argument is `clock_timestamp()` or long.

-- A time as microseconds since 1970, at most 2^53 - 1, which is never.
CREATE FUNCTION {fn}_micros(p_time timestamptz) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN p_time = 'infinity' THEN 9007199254740991
        ELSE (extract(epoch FROM p_time) * 1000000)::bigint
    END
$$;

-- The time so many microseconds later, never later than never.
CREATE FUNCTION {fn}_later(p_time timestamptz, p_micros bigint) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN p_micros >= 9007199254740991 - extract(epoch FROM p_time) * 1000000 THEN 'infinity'
        ELSE p_time + p_micros * interval '1 microsecond'
    END
$$;

-- When purging first looks at a row that is claimed now. Where an interrupted key is never forgotten, its
-- result is: by a look a day later, completing it moves nothing in the index.
CREATE FUNCTION {fn}_sweep(p_now timestamptz, p_forget_at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
    SELECT CASE p_forget_at WHEN 'infinity' THEN p_now + interval '24 hours' ELSE p_forget_at END
$$;

-- The state of a row at a time; null for a row that is no record.
CREATE FUNCTION {fn}_state(r {table}, p_now timestamptz) RETURNS text LANGUAGE sql IMMUTABLE AS $$
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
CREATE FUNCTION {fn}_begin(p_durable boolean, p_patience text) RETURNS boolean LANGUAGE plpgsql AS $$
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
CREATE FUNCTION {fn}_ended(p_key bytea) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{channel}', encode(substr(sha256(p_key), 1, 8), 'hex'));
    RETURN 'notified';
END
$$;

