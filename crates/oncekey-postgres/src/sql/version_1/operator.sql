CREATE FUNCTION {fn}_settle(
    p_key bytea, p_attempt bytea, p_token bigint, p_done boolean, p_value bytea, p_digest bytea,
    p_retention bigint, p_hold bigint, p_durable boolean, p_patience text
) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    o record;
BEGIN
    o := {fn}_own(p_key, p_attempt, p_token, p_durable, p_patience);
    IF o.outcome IS NOT NULL THEN
        RETURN o.outcome;
    ELSIF o.state = 'live' THEN
        RETURN 'busy';
    ELSIF p_done THEN
        RETURN {fn}_finish(o.r, o.now, p_value, p_digest, p_retention, p_hold);
    ELSIF o.state IN ('lapsed', 'gave_up') THEN
        RETURN {fn}_release(o.r, o.now, p_hold);
    END IF;
    RETURN CASE o.state WHEN 'released' THEN 'applied' ELSE 'lost' END;
END
$$;

-- Without an attempt and a token it removes whatever is there, also what is no record.
CREATE FUNCTION {fn}_evict(
    p_key bytea, p_attempt bytea, p_token bigint, p_force boolean, p_durable boolean, p_patience text
) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    o record;
BEGIN
    o := {fn}_own(p_key, p_attempt, p_token, p_durable, p_patience);
    IF o.outcome IN ('corrupt', 'newer') AND p_attempt IS NULL AND p_token IS NULL THEN
        o.outcome := NULL;
    END IF;
    IF o.outcome IS NOT NULL THEN
        RETURN o.outcome;
    ELSIF o.state = 'live' AND NOT p_force THEN
        RETURN 'busy';
    END IF;
    DELETE FROM {table} AS t WHERE t.key = p_key;
    IF (o.r).watched_until > o.now THEN
        PERFORM {fn}_ended((o.r).key);
    END IF;
    RETURN 'applied';
END
$$;

-- Looks at `p_limit` rows at most, and waits for none. What is over is removed; what is not is looked
-- at again when it may be.
CREATE FUNCTION {fn}_purge(p_limit bigint, OUT removed bigint, OUT looked_at bigint)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    r {table};
    v_now timestamptz := clock_timestamp();
    v_state text;
BEGIN
    removed := 0;
    looked_at := 0;
    FOR r IN
        SELECT t.* FROM {table} AS t WHERE t.sweep_at <= v_now
        ORDER BY t.sweep_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    LOOP
        looked_at := looked_at + 1;
        v_state := {fn}_state(r, v_now);
        IF r.forget_at <= v_now AND v_state NOT IN ('live', 'completed') THEN
            DELETE FROM {table} AS t WHERE t.key = r.key;
            removed := removed + 1;
        ELSE
            UPDATE {table} AS t
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
CREATE FUNCTION {fn}_watch(p_key bytea) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_watched timestamptz;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    SELECT coalesce(t.watched_until, '-infinity') INTO v_watched FROM {table} AS t
    WHERE t.key = p_key FOR UPDATE SKIP LOCKED;
    IF v_watched < clock_timestamp() + interval '30 minutes' THEN
        UPDATE {table} AS t SET watched_until = clock_timestamp() + interval '1 hour'
        WHERE t.key = p_key;
    END IF;
END
$$;

