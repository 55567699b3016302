-- refresh_treemap_data() after 004, in two points. Safe to run again; works after 004 with or without a log.
--
-- 1. Isolation. The function waits for a running refresh and then looks at what that one did: it needs READ COMMITTED, where each statement
--    sees what was committed before it. A role or database may have another default, so it says what it cannot do in words.
-- 2. The log. It keeps the newest 1,000 rows, however many ids failed refreshes have used up.
--
-- Rolled back with the rest by down/004_treemap_materialized_view.sql.

CREATE OR REPLACE FUNCTION public.refresh_treemap_data(
    p_tick timestamptz DEFAULT NULL,
    p_who text DEFAULT NULL,
    p_if_source_changed boolean DEFAULT false,
    OUT outcome text,
    OUT row_count bigint,
    OUT data_date date,
    OUT seconds double precision
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $refresh$
-- outcome: 'refreshed', or 'already done': p_tick (or a later tick) is in the log, or p_if_source_changed is set and the
-- last refresh has seen all changes of the source tables.
-- Waits for a running refresh as long as the caller's lock_timeout allows. Called by hand it then refreshes all the same,
-- because the running one may not have seen the rows that were just loaded.
DECLARE
    v_lock constant bigint := hashtextextended('treemap.refresh', 0);
    v_committed_is_seen constant boolean := current_setting('transaction_isolation') = 'read committed';
    -- Whether this call is the whole transaction: only then is a snapshot of another isolation level as new as the call.
    v_alone constant boolean := transaction_timestamp() = statement_timestamp();
    v_started timestamptz;
    v_populated boolean;
    v_source_state text;
    v_anchor date;
    v_refreshed timestamptz;
    v_id bigint;
BEGIN
    -- A replica whose clock is far ahead would otherwise use up ticks that are not due yet.
    IF p_tick > clock_timestamp() + interval '5 minutes' THEN
        RAISE EXCEPTION 'tick % lies in the future: it is % here', p_tick, clock_timestamp()
            USING HINT = 'Set the clock of the machine that asked for it.';
    END IF;

    IF v_committed_is_seen THEN
        PERFORM pg_advisory_xact_lock(v_lock);
    ELSIF NOT v_alone OR NOT pg_try_advisory_xact_lock(v_lock) THEN
        IF v_alone AND p_tick IS NOT NULL THEN
            -- What the running refresh commits is not visible here, but its tick can be found: it is unique.
            PERFORM pg_advisory_xact_lock(v_lock);
            BEGIN
                INSERT INTO public.treemap_refreshes (tick, started_at, finished_at, row_count, who)
                VALUES (p_tick, clock_timestamp(), clock_timestamp(), 0, 'a probe');
                RAISE EXCEPTION 'undo' USING ERRCODE = 'TM000';
            EXCEPTION
                WHEN unique_violation THEN
                    outcome := 'already done';
                    RETURN;
                WHEN SQLSTATE 'TM000' THEN
                    NULL;
            END;
        END IF;
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_transaction_state',
            MESSAGE = format('refresh_treemap_data() cannot see what other sessions have committed: this transaction has the isolation level %s',
                upper(current_setting('transaction_isolation'))),
            HINT = 'Call it in a transaction of its own: BEGIN ISOLATION LEVEL READ COMMITTED; SELECT refresh_treemap_data(); COMMIT';
    END IF;
    v_started := clock_timestamp();

    IF EXISTS (SELECT FROM public.treemap_refreshes WHERE tick >= p_tick) THEN
        outcome := 'already done';
        RETURN;
    END IF;
    -- Read before the view is: a change in between is seen by this refresh and found again, never missed. With an older snapshot it
    -- would be missed, so then nothing is recorded, and the service refreshes once more.
    v_source_state := public.treemap_source_state();
    IF p_if_source_changed AND v_source_state = (
        SELECT log.source_state FROM public.treemap_refreshes log ORDER BY log.id DESC LIMIT 1
    ) THEN
        outcome := 'already done';
        RETURN;
    END IF;
    IF NOT v_committed_is_seen THEN
        v_source_state := NULL;
    END IF;

    SELECT c.relispopulated INTO v_populated
    FROM pg_class c
    WHERE c.oid = to_regclass('public.mv_treemap_data') AND c.relkind = 'm';
    IF v_populated IS NULL THEN
        RAISE undefined_table USING
            MESSAGE = 'materialized view public.mv_treemap_data does not exist',
            HINT = 'Create it with: treemap migrate';
    ELSIF NOT EXISTS (
        SELECT FROM pg_index
        WHERE indrelid = 'public.mv_treemap_data'::regclass AND indisunique AND indisvalid AND indpred IS NULL AND indexprs IS NULL
    ) THEN
        RAISE undefined_object USING
            MESSAGE = 'materialized view public.mv_treemap_data has no usable unique index, and cannot be refreshed concurrently',
            HINT = 'Create it with: treemap migrate';
    END IF;

    SELECT max("DATE")::date INTO v_anchor FROM public.shorts;
    IF v_populated THEN
        REFRESH MATERIALIZED VIEW CONCURRENTLY public.mv_treemap_data;
    ELSE
        -- Never filled (a restored schema, say): CONCURRENTLY has nothing to compare with, and nobody can be reading.
        REFRESH MATERIALIZED VIEW public.mv_treemap_data;
    END IF;

    -- A report that was committed between the two statements above is in the view: then its date is the anchor.
    SELECT count(*), greatest(v_anchor, max(latest_date)::date), max(last_refreshed)
    INTO row_count, data_date, v_refreshed
    FROM public.mv_treemap_data;

    INSERT INTO public.treemap_refreshes
        (tick, started_at, finished_at, last_refreshed, row_count, data_date, source_state, who)
    VALUES (p_tick, v_started, clock_timestamp(), v_refreshed, row_count, data_date, v_source_state,
        coalesce(p_who, concat_ws(' ', session_user, nullif(current_setting('application_name'), ''))))
    RETURNING id INTO v_id;
    DELETE FROM public.treemap_refreshes
    WHERE id < (SELECT log.id FROM public.treemap_refreshes log ORDER BY log.id DESC OFFSET 999 LIMIT 1);

    PERFORM pg_notify('treemap_refreshed', v_id::text);
    outcome := 'refreshed';
    seconds := extract(epoch FROM clock_timestamp() - v_started);
END
$refresh$;
