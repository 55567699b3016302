--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: get_treemap_data(text, integer, text); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.get_treemap_data(p_period text, p_limit integer DEFAULT 10, p_view_mode text DEFAULT 'percentage_change'::text) RETURNS TABLE(industry text, product_code text, short_position double precision)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
-- The ranked window query, for people in psql: what GetIndustryTreeMap answers, by the same names.
DECLARE
    v_period text := CASE
        WHEN upper(p_period) IN ('1D', '1W', '1M', '3M') THEN '3m'
        WHEN upper(p_period) IN ('6M', '1Y', '2Y', '5Y') THEN lower(p_period)
        WHEN upper(p_period) IN ('10Y', 'MAX') THEN 'max'
    END;
BEGIN
    IF v_period IS NULL THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'invalid period format. Valid periods: 1D, 1W, 1M, 3M, 6M, 1Y, 2Y, 5Y, 10Y, MAX';
    ELSIF p_limit IS NULL OR p_limit < 1 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'limit must be positive';
    ELSIF upper(p_view_mode) IN ('CURRENT', 'CURRENT_CHANGE') THEN
        RETURN QUERY
        SELECT ranked.industry, ranked.product_code, ranked.current_short_position
        FROM (
            SELECT v.industry, v.product_code, v.current_short_position, row_number() OVER (
                PARTITION BY v.industry COLLATE "C"
                ORDER BY v.current_short_position DESC, v.product_code COLLATE "C"
            ) AS place
            FROM public.mv_treemap_data v
            WHERE v.period_name = v_period
        ) AS ranked
        WHERE ranked.place <= p_limit
        ORDER BY ranked.industry COLLATE "C", ranked.place;
    ELSIF upper(p_view_mode) = 'PERCENTAGE_CHANGE' THEN
        RETURN QUERY
        SELECT ranked.industry, ranked.product_code, ranked.percentage_change
        FROM (
            SELECT v.industry, v.product_code, v.percentage_change, row_number() OVER (
                PARTITION BY v.industry COLLATE "C"
                ORDER BY v.percentage_change DESC, v.product_code COLLATE "C"
            ) AS place
            FROM public.mv_treemap_data v
            WHERE v.period_name = v_period AND v.percentage_change IS NOT NULL
        ) AS ranked
        WHERE ranked.place <= p_limit
        ORDER BY ranked.industry COLLATE "C", ranked.place;
    ELSE
        RAISE invalid_parameter_value USING
            MESSAGE = 'invalid view mode. Valid modes: CURRENT_CHANGE, PERCENTAGE_CHANGE';
    END IF;
END
$$;


ALTER FUNCTION public.get_treemap_data(p_period text, p_limit integer, p_view_mode text) OWNER TO postgres;

--
-- Name: FUNCTION get_treemap_data(p_period text, p_limit integer, p_view_mode text); Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON FUNCTION public.get_treemap_data(p_period text, p_limit integer, p_view_mode text) IS 'The top p_limit stocks of each industry for a period (3m, 6m, 1y, 2y, 5y, max) and view mode (CURRENT_CHANGE, PERCENTAGE_CHANGE).';


--
-- Name: refresh_treemap_data(timestamp with time zone, text, boolean); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.refresh_treemap_data(p_tick timestamp with time zone DEFAULT NULL::timestamp with time zone, p_who text DEFAULT NULL::text, p_if_source_changed boolean DEFAULT false, OUT outcome text, OUT row_count bigint, OUT data_date date, OUT seconds double precision) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET row_security TO 'off'
    SET quote_all_identifiers TO 'off'
    SET default_table_access_method TO 'heap'
    SET extra_float_digits TO '1'
    SET jit TO 'off'
    AS $$
-- outcome: 'refreshed', or 'already done': p_tick (or a later tick) is in the log, or p_if_source_changed is set and the
-- last refresh has seen all changes of the source tables.
-- Waits for a running refresh as long as the caller's lock_timeout allows. Called by hand it then refreshes all the same,
-- because the running one may not have seen the rows that were just loaded.
DECLARE
    v_lock constant bigint := hashtextextended('treemap.refresh', 0);
    v_committed_is_seen constant boolean := current_setting('transaction_isolation') = 'read committed';
    -- Whether this call is the whole transaction: only then is a snapshot of another isolation level as new as the call.
    v_alone constant boolean := transaction_timestamp() = statement_timestamp();
    v_place constant text := public.treemap_place();
    v_lock_timeout constant text := current_setting('lock_timeout');
    v_patience constant interval := v_lock_timeout::interval;
    v_called constant timestamptz := clock_timestamp();
    v_waited boolean := false;
    v_started timestamptz;
    v_populated boolean;
    v_source_state text;
    v_anchor date;
    v_rows_before bigint := 0;
    v_future_rows bigint;
    v_reads_source boolean;
    v_triggers text;
    v_newest date;
    v_refreshed timestamptz;
    v_id bigint;
BEGIN
    -- A replica whose clock is far ahead would otherwise use up ticks that are not due yet.
    IF p_tick > clock_timestamp() + interval '5 minutes' THEN
        RAISE EXCEPTION 'tick % lies in the future: it is % here', p_tick, clock_timestamp()
            USING HINT = 'Set the clock of the machine that asked for it.';
    END IF;
    IF NOT v_committed_is_seen AND NOT v_alone THEN
        v_waited := true;
    END IF;

    -- All locks that a refresh may have to wait for, at once or none: a pipeline that holds a source table and calls this function in the
    -- same transaction would otherwise wait for us while we wait for it, and Postgres would roll back its load. Each try is shorter than
    -- deadlock_timeout, after which Postgres looks for such a circle; what it has got is given back before the next.
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '250ms', true);
            PERFORM FROM public.shorts LIMIT 0;
            PERFORM FROM public."company-metadata" LIMIT 0;
            IF NOT pg_try_advisory_xact_lock(v_lock) THEN
                v_waited := true;
                PERFORM pg_advisory_xact_lock(v_lock);
            END IF;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            v_waited := true;
            IF v_patience > interval '0' AND clock_timestamp() > v_called + v_patience THEN
                RAISE lock_not_available USING
                    MESSAGE = 'another session holds a lock on the source tables, or refreshes, for longer than lock_timeout allows to wait',
                    HINT = 'See pg_stat_activity and pg_locks.';
            END IF;
        END;
        PERFORM pg_sleep(0.02 + 0.05 * random());
    END LOOP;
    PERFORM set_config('lock_timeout', v_lock_timeout, true);

    IF NOT v_committed_is_seen AND v_waited THEN
        IF v_alone AND p_tick IS NOT NULL THEN
            -- What the running refresh has committed is not visible here, but its tick can be found: it is unique.
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

    IF EXISTS (SELECT FROM public.treemap_refreshes WHERE place = v_place AND tick >= p_tick) THEN
        outcome := 'already done';
        RETURN;
    END IF;
    -- Read before the view is: a change in between is seen by this refresh and found again, never missed. With an older snapshot it
    -- would be missed, so then nothing is recorded, and the service refreshes once more.
    v_source_state := public.treemap_source_state();
    IF p_if_source_changed AND v_source_state = (
        SELECT log.source_state FROM public.treemap_refreshes log WHERE log.place = v_place ORDER BY log.finished_at DESC LIMIT 1
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

    v_reads_source := public.treemap_view_reads_source();
    IF NOT v_reads_source THEN
        PERFORM public.treemap_require_columns();
    END IF;
    SELECT max("DATE")::date INTO v_anchor
    FROM public.shorts
    WHERE "DATE" >= '1900-01-01' AND "DATE" < (now() AT TIME ZONE 'Australia/Sydney')::date + 2;
    SELECT count(*) INTO v_future_rows
    FROM public.shorts
    WHERE "DATE" >= (now() AT TIME ZONE 'Australia/Sydney')::date + 2;
    IF v_populated THEN
        SELECT count(*) INTO v_rows_before FROM public.mv_treemap_data;
    END IF;
    IF NOT v_reads_source THEN
        -- A table was put in place by a rename: the view still reads the one that had the name before.
        PERFORM public.treemap_build_view();
    ELSIF v_populated THEN
        BEGIN
            REFRESH MATERIALIZED VIEW CONCURRENTLY public.mv_treemap_data;
        EXCEPTION WHEN raise_exception THEN
            -- Postgres drops its temporary tables.
            SELECT string_agg(evtname, ', ' ORDER BY evtname) INTO v_triggers
            FROM pg_event_trigger
            WHERE evtenabled <> 'D' AND evtevent IN ('ddl_command_start', 'sql_drop') AND (evttags IS NULL OR 'DROP TABLE' = ANY (evttags));
            IF v_triggers IS NULL THEN
                RAISE;
            END IF;
            RAISE EXCEPTION '%', SQLERRM USING HINT =
                'A refresh drops temporary tables of its own. Disable these event triggers, or let them pass what is_temporary: ' || v_triggers;
        END;
    ELSE
        -- Never filled (a restored schema, say): CONCURRENTLY has nothing to compare with, and nobody can be reading.
        REFRESH MATERIALIZED VIEW public.mv_treemap_data;
    END IF;

    -- A report that was committed since the anchor was read is in the view: then its date is the anchor.
    SELECT count(*), max(latest_date)::date, max(last_refreshed) INTO row_count, v_newest, v_refreshed FROM public.mv_treemap_data;
    data_date := greatest(v_anchor, v_newest);
    IF row_count = 0 AND v_rows_before > 0 AND EXISTS (SELECT FROM public.shorts) THEN
        RAISE EXCEPTION 'the refresh would leave none of % rows in mv_treemap_data, though shorts has rows; the view was left as it was', v_rows_before
            USING ERRCODE = 'no_data_found',
            HINT = 'Is there an industry in "company-metadata" for the codes in shorts, and a report of the last six months with percents above 0?';
    ELSIF v_newest < data_date THEN
        RAISE WARNING 'no stock has a position on %, the newest day: the newest figures are of %', data_date, v_newest;
    END IF;

    INSERT INTO public.treemap_refreshes
        (tick, started_at, finished_at, last_refreshed, row_count, data_date, source_state, who, future_rows)
    VALUES (p_tick, v_started, clock_timestamp(), v_refreshed, row_count, data_date, v_source_state,
        coalesce(p_who, concat_ws(' ', session_user, nullif(current_setting('application_name'), ''))), v_future_rows)
    RETURNING id INTO v_id;
    DELETE FROM public.treemap_refreshes
    WHERE (finished_at, place, id) < (
        SELECT log.finished_at, log.place, log.id FROM public.treemap_refreshes log
        ORDER BY log.finished_at DESC, log.place DESC, log.id DESC OFFSET 999 LIMIT 1
    );

    PERFORM pg_notify('treemap_refreshed', v_id::text);
    outcome := 'refreshed';
    seconds := extract(epoch FROM clock_timestamp() - v_started);
END
$$;


ALTER FUNCTION public.refresh_treemap_data(p_tick timestamp with time zone, p_who text, p_if_source_changed boolean, OUT outcome text, OUT row_count bigint, OUT data_date date, OUT seconds double precision) OWNER TO postgres;

--
-- Name: FUNCTION refresh_treemap_data(p_tick timestamp with time zone, p_who text, p_if_source_changed boolean, OUT outcome text, OUT row_count bigint, OUT data_date date, OUT seconds double precision); Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON FUNCTION public.refresh_treemap_data(p_tick timestamp with time zone, p_who text, p_if_source_changed boolean, OUT outcome text, OUT row_count bigint, OUT data_date date, OUT seconds double precision) IS 'Refreshes mv_treemap_data without blocking its readers, logs it in treemap_refreshes and notifies the servers. Call it after loading reports.';


--
-- Name: treemap_build_view(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.treemap_build_view() RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET row_security TO 'off'
    SET default_table_access_method TO 'heap'
    SET extra_float_digits TO '1'
    AS $_$
-- Creates the view where it is missing. Replaces it where its definition is another one, or where it reads a table that is no longer
-- called public.shorts or public."company-metadata". Who could read the old one can read the new one. Fails, changing nothing, when other
-- objects depend on it, or no row would be left. True when it built.
DECLARE
    -- Per stock and period, index probes for the last and the first report: 100 x faster than window functions over a cross
    -- join of all reports. Of several rows for one stock and day the lowest percent counts, so that repeated rows change nothing.
    -- anchor:   the newest report that is not in the future, which is: not after tomorrow in Sydney, as `treemap load` has it;
    -- latest:   the last non-null percent within the period, at most 6 months before the anchor: one
    --           probe serves all periods, for it is the same row in each that reaches back to it;
    -- earliest: the first non-null percent within the period. Periods reach back from the anchor, never from today.
    -- NaN and infinities are no position (in Postgres NaN > 0 holds, and sorts first), and no change can be computed from
    -- an earliest of 0; the bounds on percentage_change keep the division from overflowing, which would fail the refresh.
    v_definition constant text := $view$
CREATE MATERIALIZED VIEW public.mv_treemap_data
WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05)
AS
WITH anchor AS MATERIALIZED (
    SELECT max("DATE")::timestamp AS day, clock_timestamp() AS refreshed
    FROM public.shorts
    WHERE "DATE" >= '1900-01-01' AND "DATE" < (now() AT TIME ZONE 'Australia/Sydney')::date + 2
),
period (name, reach) AS (
    VALUES ('3m', interval '3 months'), ('6m', interval '6 months'), ('1y', interval '1 year'),
        ('2y', interval '2 years'), ('5y', interval '5 years'), ('max', interval '10 years')
),
stock AS (
    SELECT DISTINCT ON (code) stock_code::text AS code, industry::text AS industry, company_name::text AS name
    FROM public."company-metadata"
    WHERE stock_code::text ~ '[^[:space:]]' AND industry::text ~ '[^[:space:]]'
    ORDER BY code, industry, name
)
SELECT
    period.name::text AS period_name,
    stock.industry,
    stock.code AS product_code,
    stock.name AS company_name,
    latest.percent AS current_short_position,
    earliest.percent AS earliest_short_position,
    CASE
        WHEN abs(earliest.percent) BETWEEN 1e-100 AND 1e100 AND latest.percent BETWEEN 1e-100 AND 1e100
        THEN (latest.percent - earliest.percent) / earliest.percent * 100
    END AS percentage_change,
    latest.day AS latest_date,
    anchor.refreshed AS last_refreshed
FROM anchor
CROSS JOIN stock
CROSS JOIN LATERAL (
    SELECT s."DATE"::timestamp AS day,
        public.treemap_percent(s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS") AS percent
    FROM public.shorts s
    WHERE s."PRODUCT_CODE" = stock.code
        AND s."DATE" >= anchor.day - interval '6 months'
        AND s."DATE" <= anchor.day
        AND public.treemap_percent(s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS") IS NOT NULL
    ORDER BY s."DATE" DESC, percent
    LIMIT 1
) AS latest
JOIN period ON latest.day >= anchor.day - period.reach
CROSS JOIN LATERAL (
    SELECT public.treemap_percent(s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS") AS percent
    FROM public.shorts s
    WHERE s."PRODUCT_CODE" = stock.code
        AND s."DATE" >= anchor.day - period.reach
        AND public.treemap_percent(s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS") IS NOT NULL
    ORDER BY s."DATE", percent
    LIMIT 1
) AS earliest
WHERE latest.percent > 0 AND latest.percent < 'Infinity'
$view$;
    -- Kept in the view's comment: it tells this definition from any other.
    v_comment constant text := 'Short position per stock and look-back period, refreshed by refresh_treemap_data(). Definition '
        || md5(v_definition);
    v_view constant regclass := to_regclass('public.mv_treemap_data');
    v_percent constant text := 's."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS"';
    v_single boolean;
    v_replace boolean;
    v_rows_before bigint := 0;
    v_grants text[];
    v_statement text;
    v_detail text;
BEGIN
    PERFORM public.treemap_require_columns();
    v_replace := obj_description(v_view, 'pg_class') IS DISTINCT FROM v_comment OR NOT public.treemap_view_reads_source();
    IF v_replace THEN
        SELECT array_agg(format('GRANT %s ON public.mv_treemap_data TO %I%s', granted.privilege_type, r.rolname,
            CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END))
        INTO v_grants
        FROM pg_class c, aclexplode(c.relacl) AS granted
        JOIN pg_roles r ON r.oid = granted.grantee
        WHERE c.oid = v_view AND granted.grantee <> c.relowner AND r.rolname NOT IN ('anon', 'authenticated');
        IF (SELECT relispopulated FROM pg_class WHERE oid = v_view) THEN
            SELECT count(*) INTO v_rows_before FROM public.mv_treemap_data;
        END IF;
        IF v_view IS NOT NULL THEN
            BEGIN
                DROP MATERIALIZED VIEW public.mv_treemap_data RESTRICT;
            EXCEPTION WHEN dependent_objects_still_exist THEN
                GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL;
                RAISE dependent_objects_still_exist USING
                    MESSAGE = 'mv_treemap_data was left as it is, because other objects depend on it',
                    DETAIL = v_detail,
                    HINT = 'Drop them, migrate, and create them again.';
            END;
        END IF;
        -- Of single precision, 0.54 is meant by what is 0.5400000214576721 in double precision.
        v_single := EXISTS (
            SELECT
            FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
            WHERE a.attrelid = 'public.shorts'::regclass AND quote_ident(a.attname) = split_part(v_percent, '.', 2)
                AND 'real'::regtype IN (t.oid, t.typbasetype)
        );
        EXECUTE CASE WHEN v_single THEN replace(v_definition, v_percent, v_percent || '::text::double precision') ELSE v_definition END;
        IF v_rows_before > 0 AND NOT EXISTS (SELECT FROM public.mv_treemap_data) AND EXISTS (SELECT FROM public.shorts) THEN
            RAISE EXCEPTION 'a new mv_treemap_data would leave none of % rows, though shorts has rows; the view was left as it was', v_rows_before
                USING ERRCODE = 'no_data_found',
                HINT = 'Is there an industry in "company-metadata" for the codes in shorts, and a report of the last six months with percents above 0?';
        END IF;
        EXECUTE format('COMMENT ON MATERIALIZED VIEW public.mv_treemap_data IS %L', v_comment);
        -- Default privileges (Supabase has some for anon and authenticated) count only where there was no view before, and never open it.
        FOR v_statement IN
            SELECT DISTINCT 'REVOKE ALL ON public.mv_treemap_data FROM ' || coalesce(quote_ident(r.rolname), 'PUBLIC')
            FROM pg_class c, aclexplode(c.relacl) AS granted
            LEFT JOIN pg_roles r ON r.oid = granted.grantee
            WHERE c.oid = to_regclass('public.mv_treemap_data') AND granted.grantee <> c.relowner
                AND (v_view IS NOT NULL OR granted.grantee = 0 OR r.rolname IN ('anon', 'authenticated'))
        LOOP
            EXECUTE v_statement;
        END LOOP;
        FOREACH v_statement IN ARRAY coalesce(v_grants, '{}') LOOP
            EXECUTE v_statement;
        END LOOP;
    END IF;

    -- Without a unique index on plain columns the view cannot be refreshed concurrently.
    CREATE UNIQUE INDEX IF NOT EXISTS idx_mv_treemap_unique ON public.mv_treemap_data (period_name, product_code);
    -- The order in which the ranked window query of each view mode reads: it needs no sort, and its run condition cuts.
    CREATE INDEX IF NOT EXISTS idx_mv_treemap_period_current ON public.mv_treemap_data
        (period_name, industry COLLATE "C", current_short_position DESC, product_code COLLATE "C");
    CREATE INDEX IF NOT EXISTS idx_mv_treemap_period_industry ON public.mv_treemap_data
        (period_name, industry COLLATE "C", percentage_change DESC, product_code COLLATE "C")
        WHERE percentage_change IS NOT NULL;
    CREATE INDEX IF NOT EXISTS idx_mv_treemap_product ON public.mv_treemap_data (product_code, period_name);
    CREATE INDEX IF NOT EXISTS idx_mv_treemap_refresh ON public.mv_treemap_data (last_refreshed DESC);
    IF v_replace THEN
        ANALYZE public.mv_treemap_data;
    END IF;
    RETURN v_replace;
END
$_$;


ALTER FUNCTION public.treemap_build_view() OWNER TO postgres;

--
-- Name: FUNCTION treemap_build_view(); Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON FUNCTION public.treemap_build_view() IS 'Creates mv_treemap_data, or replaces one that is another version or reads other tables. Called by the migration and by refresh_treemap_data().';


--
-- Name: treemap_column_differences(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.treemap_column_differences() RETURNS TABLE(relation text, difference text, hint text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET quote_all_identifiers TO 'off'
    AS $$
WITH RECURSIVE source (relation, name, types, words) AS (
    VALUES
        ('public.shorts', 'DATE', '{timestamp,date}'::regtype[], 'timestamp or date'),
        -- Compared with others, Postgres would read every row instead of the index.
        ('public.shorts', 'PRODUCT_CODE', '{text,varchar}', 'text'),
        ('public.shorts', 'PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS',
            '{float8,float4,numeric,int2,int4,int8,text,varchar,bpchar}', 'a number, or text'),
        ('public."company-metadata"', 'stock_code', '{text,varchar,bpchar}', 'text'),
        ('public."company-metadata"', 'company_name', '{text,varchar,bpchar}', 'text'),
        -- A number would be shown as the name of the industry.
        ('public."company-metadata"', 'industry', '{text,varchar,bpchar}', 'text')
),
found AS (
    SELECT source.*, format_type(a.atttypid, a.atttypmod) AS type, a.atttypid AS base
    FROM source JOIN pg_catalog.pg_attribute a ON a.attrelid = to_regclass(source.relation) AND a.attname = source.name AND NOT a.attisdropped
),
-- A domain is what lies below it.
below AS (
    SELECT * FROM found
    UNION ALL
    SELECT relation, name, types, words, type, typbasetype FROM below JOIN pg_catalog.pg_type ON pg_type.oid = base AND typtype = 'd'
),
log (name, type, needed, default_like) AS (
    VALUES ('id', 'bigint'::regtype, true, '%clock_timestamp()%'), ('tick', 'timestamptz', false, NULL), ('started_at', 'timestamptz', true, NULL),
        ('finished_at', 'timestamptz', true, NULL), ('last_refreshed', 'timestamptz', false, NULL), ('row_count', 'bigint', true, NULL),
        ('data_date', 'date', false, NULL), ('source_state', 'text', false, NULL), ('who', 'text', true, NULL),
        ('place', 'text', true, '%treemap_place()'), ('future_rows', 'bigint', true, '0')
),
log_key AS (
    SELECT i.indexrelid::regclass AS name, CASE WHEN i.indpred IS NULL AND i.indexprs IS NULL AND i.indisvalid THEN (
        SELECT array_agg(attname ORDER BY attname) FROM pg_catalog.pg_attribute WHERE attrelid = i.indrelid AND attnum = ANY (i.indkey)
    ) END AS columns
    FROM pg_catalog.pg_index i
    WHERE i.indrelid = to_regclass('public.treemap_refreshes') AND i.indisunique
)
SELECT relation, format('column "%s" of %s is %s; expected %s', name, relation, type, words)
        || CASE WHEN name = 'DATE' THEN ': which day that is depends on how it is read' ELSE '' END AS difference,
    CASE
        WHEN name <> 'DATE' THEN 'Change its type, or put a view in place of the table.'
        WHEN type LIKE '%with time zone' THEN
            'Make it a timestamp: ALTER TABLE public.shorts ALTER "DATE" TYPE timestamp USING "DATE" AT TIME ZONE ''the zone in which it was loaded'''
        ELSE 'Make it a timestamp: ALTER TABLE public.shorts ALTER "DATE" TYPE timestamp USING "DATE"::timestamp'
    END AS hint
FROM below JOIN pg_catalog.pg_type ON pg_type.oid = base
WHERE typtype <> 'd' AND base <> ALL (types)
    -- Enumerations and other kinds of text have words, too.
    AND (relation = 'public.shorts' OR typcategory NOT IN ('S', 'E'))
UNION ALL
SELECT 'public.treemap_refreshes', format('column "%s" of public.treemap_refreshes is %s', log.name,
    CASE
        WHEN attnum IS NULL THEN 'missing'
        WHEN atttypid <> log.type THEN format('%s; expected %s', format_type(atttypid, atttypmod), log.type)
        WHEN log.needed AND NOT attnotnull THEN 'not NOT NULL'
        ELSE 'without its default'
    END), NULL
FROM log
LEFT JOIN pg_catalog.pg_attribute a ON attrelid = to_regclass('public.treemap_refreshes') AND attname = log.name AND NOT attisdropped
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum
WHERE to_regclass('public.treemap_refreshes') IS NOT NULL
    AND (attnum IS NULL OR atttypid <> log.type OR log.needed AND NOT attnotnull
        OR log.default_like IS NOT NULL AND pg_get_expr(d.adbin, d.adrelid) LIKE log.default_like IS NOT TRUE)
UNION ALL
SELECT 'public.treemap_refreshes', format('public.treemap_refreshes has no unique index on (place, %s)', second), NULL
FROM unnest('{id,tick}'::name[]) AS second
WHERE to_regclass('public.treemap_refreshes') IS NOT NULL
    AND NOT EXISTS (SELECT FROM log_key WHERE columns @> ARRAY['place', second] AND cardinality(columns) = 2)
UNION ALL
SELECT 'public.treemap_refreshes', format('index %s of public.treemap_refreshes is unique: rows from another database may collide', name), NULL
FROM log_key
WHERE columns IS NULL OR columns NOT IN ('{id,place}', '{place,tick}')
$$;


ALTER FUNCTION public.treemap_column_differences() OWNER TO postgres;

--
-- Name: FUNCTION treemap_column_differences(); Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON FUNCTION public.treemap_column_differences() IS 'What in the columns of shorts and "company-metadata" the treemap cannot read, and what differs in its log.';


--
-- Name: treemap_percent(double precision); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.treemap_percent(percent double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    SELECT percent
$$;


ALTER FUNCTION public.treemap_percent(percent double precision) OWNER TO postgres;

--
-- Name: treemap_percent(text); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.treemap_percent(percent text) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    SELECT CASE
        WHEN length(percent) <= 100 AND percent COLLATE "C" ~ (
            E'^[[:space:]\\u00a0\\u2000-\\u200a\\u202f\\u205f\\u3000]*[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?'
            || E'[[:space:]\\u00a0\\u2000-\\u200a\\u202f\\u205f\\u3000]*%?[[:space:]\\u00a0\\u2000-\\u200a\\u202f\\u205f\\u3000]*$')
        THEN substring(percent COLLATE "C" FROM '[-+.0-9eE]+')::double precision
    END
$_$;


ALTER FUNCTION public.treemap_percent(percent text) OWNER TO postgres;

--
-- Name: treemap_place(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.treemap_place() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT concat_ws('.', (SELECT system_identifier FROM pg_control_system()), d.oid) FROM pg_database d WHERE d.datname = current_database()
$$;


ALTER FUNCTION public.treemap_place() OWNER TO postgres;

--
-- Name: FUNCTION treemap_place(); Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON FUNCTION public.treemap_place() IS 'The cluster and the database, as a text that no other database has.';


--
-- Name: treemap_require_columns(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.treemap_require_columns() RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    v_found record;
BEGIN
    FOR v_found IN SELECT difference, hint FROM public.treemap_column_differences() WHERE relation <> 'public.treemap_refreshes' LOOP
        RAISE EXCEPTION '%', v_found.difference USING ERRCODE = 'datatype_mismatch', HINT = v_found.hint;
    END LOOP;
END
$$;


ALTER FUNCTION public.treemap_require_columns() OWNER TO postgres;

--
-- Name: FUNCTION treemap_require_columns(); Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON FUNCTION public.treemap_require_columns() IS 'Fails when the treemap cannot read a column of shorts or "company-metadata".';


--
-- Name: treemap_source_facts(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.treemap_source_facts(OUT newest date, OUT newest_stocks bigint, OUT usual_stocks bigint, OUT newest_figures date, OUT timed_rows bigint, OUT future_rows bigint, OUT future_first text, OUT future_last text, OUT seen boolean, OUT uncounted boolean) RETURNS record
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET row_security TO 'off'
    SET lock_timeout TO '500ms'
    SET jit TO 'off'
    AS $$
-- The source as it is now, and what of it the view has seen, for `treemap status`: its role may not read the source. Reads 30 days.
DECLARE
    v_end constant timestamp := (now() AT TIME ZONE 'Australia/Sydney')::date + 2;
    v_state constant text := public.treemap_source_state();
BEGIN
    PERFORM public.treemap_require_columns();
    SELECT max("DATE")::date INTO newest FROM public.shorts WHERE "DATE" >= '1900-01-01' AND "DATE" < v_end;
    WITH report AS MATERIALIZED (
        SELECT s."DATE"::date AS day, s."DATE"::timestamp <> s."DATE"::date AS timed,
            public.treemap_percent(s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS") AS percent
        FROM public.shorts s
        WHERE s."DATE" > newest - 30 AND s."DATE" < v_end
    ),
    day AS MATERIALIZED (
        SELECT report.day, count(*) FILTER (WHERE percent >= 0 AND percent < 'Infinity') AS stocks FROM report GROUP BY report.day
    )
    SELECT (SELECT stocks FROM day ORDER BY day.day DESC LIMIT 1),
        -- The median of the days before it.
        (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY stocks)
            FROM (SELECT stocks FROM day ORDER BY day.day DESC OFFSET 1 LIMIT 10) AS before),
        (SELECT count(*) FROM report WHERE timed)
    INTO newest_stocks, usual_stocks, timed_rows;
    SELECT count(*), min("DATE")::text, max("DATE")::text INTO future_rows, future_first, future_last FROM public.shorts WHERE "DATE" >= v_end;
    SELECT max(latest_date)::date INTO newest_figures FROM public.mv_treemap_data;
    seen := v_state IS NOT DISTINCT FROM (
        SELECT source_state FROM public.treemap_refreshes
        WHERE last_refreshed IS NOT DISTINCT FROM (SELECT max(last_refreshed) FROM public.mv_treemap_data)
        ORDER BY finished_at DESC LIMIT 1
    );
    uncounted := coalesce(v_state LIKE '%uncounted%', false);
END
$$;


ALTER FUNCTION public.treemap_source_facts(OUT newest date, OUT newest_stocks bigint, OUT usual_stocks bigint, OUT newest_figures date, OUT timed_rows bigint, OUT future_rows bigint, OUT future_first text, OUT future_last text, OUT seen boolean, OUT uncounted boolean) OWNER TO postgres;

--
-- Name: FUNCTION treemap_source_facts(OUT newest date, OUT newest_stocks bigint, OUT usual_stocks bigint, OUT newest_figures date, OUT timed_rows bigint, OUT future_rows bigint, OUT future_first text, OUT future_last text, OUT seen boolean, OUT uncounted boolean); Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON FUNCTION public.treemap_source_facts(OUT newest date, OUT newest_stocks bigint, OUT usual_stocks bigint, OUT newest_figures date, OUT timed_rows bigint, OUT future_rows bigint, OUT future_first text, OUT future_last text, OUT seen boolean, OUT uncounted boolean) IS 'What of shorts people should look at, and whether the view has seen all of it; for treemap status.';


--
-- Name: treemap_source_state(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.treemap_source_state() RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET row_security TO 'off'
    SET lock_timeout TO '100ms'
    AS $_$
-- Postgres' own counters of what was inserted, updated and deleted, summed over both tables, their partitions and children, and what
-- a view in their place reads. File numbers reveal a TRUNCATE, which counts nothing. The instants of the last reset reveal that the
-- counters began again at 0, after a crash too. All of it may differ without a change (a rollback, a VACUUM FULL): that
-- costs a refresh too many, never one too few. The newest day, one probe of an index, is noticed where nothing is counted, too.
DECLARE
    v_state text;
    v_tree regclass[];
    v_counted boolean;
    v_distributed boolean := false;
    v_newest timestamp;
    v_rows bigint;
BEGIN
    WITH RECURSIVE source (oid) AS (
        SELECT unnest(ARRAY[to_regclass('public.shorts'), to_regclass('public."company-metadata"')])::oid
        UNION
        SELECT below.oid
        FROM source
        CROSS JOIN LATERAL (
            SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = source.oid
            UNION ALL
            SELECT d.refobjid
            FROM pg_rewrite r
            JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
            WHERE r.ev_class = source.oid
        ) AS below (oid)
    )
    SELECT concat_ws('.', to_regclass('public.shorts')::oid, to_regclass('public."company-metadata"')::oid, count(*),
            sum(c.relfilenode::bigint), sum(pg_stat_get_tuples_inserted(c.oid)), sum(pg_stat_get_tuples_updated(c.oid)),
            sum(pg_stat_get_tuples_deleted(c.oid))),
        array_agg(c.oid::regclass),
        bool_and(c.relkind <> 'f') AND current_setting('track_counts')::boolean
    INTO v_state, v_tree, v_counted
    FROM source JOIN pg_class c ON c.oid = source.oid;

    v_state := concat_ws('.', v_state,
        extract(epoch FROM (SELECT pg_stat_get_db_stat_reset_time(d.oid) FROM pg_database d WHERE d.datname = current_database())),
        extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()));

    -- A function below a view may read anything, from anywhere.
    v_counted := v_counted AND NOT EXISTS (
        SELECT
        FROM pg_rewrite r
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_proc'::regclass
        JOIN pg_proc f ON f.oid = d.refobjid AND f.provolatile <> 'i'
        WHERE r.ev_class = ANY (v_tree)
    );
    IF to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL THEN
        -- Citus counts on other machines.
        EXECUTE 'SELECT EXISTS (SELECT FROM pg_catalog.pg_dist_partition WHERE logicalrelid = ANY ($1))' INTO v_distributed USING v_tree;
    END IF;
    IF v_distributed OR NOT v_counted THEN
        v_state := v_state || ' uncounted';
    END IF;

    BEGIN
        SELECT max("DATE") INTO v_newest
        FROM public.shorts
        WHERE "DATE" >= '1900-01-01' AND "DATE" < (now() AT TIME ZONE 'Australia/Sydney')::date + 2;
        v_state := concat_ws(' ', v_state, to_char(v_newest, 'YYYY-MM-DD HH24:MI:SS.US'));
        IF v_distributed OR NOT v_counted THEN
            SELECT count(*) INTO v_rows
            FROM public.shorts
            WHERE "DATE" >= v_newest AND "DATE" < (now() AT TIME ZONE 'Australia/Sydney')::date + 2;
            v_state := concat_ws(' ', v_state, v_rows, (SELECT count(*) FROM public."company-metadata"));
        END IF;
    EXCEPTION
        WHEN lock_not_available THEN
            -- A pipeline is at work, and what it has done is not committed: nothing has changed yet but what is counted.
            v_state := split_part(v_state, ' ', 1) || coalesce((
                SELECT substring(log.source_state FROM ' .*')
                FROM public.treemap_refreshes log
                WHERE log.place = public.treemap_place()
                ORDER BY log.finished_at DESC LIMIT 1
            ), '');
        WHEN undefined_table OR undefined_column OR undefined_function OR datatype_mismatch THEN
            -- The refresh fails, and says why.
            NULL;
    END;
    RETURN v_state;
END
$_$;


ALTER FUNCTION public.treemap_source_state() OWNER TO postgres;

--
-- Name: FUNCTION treemap_source_state(); Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON FUNCTION public.treemap_source_state() IS 'Differs when rows of shorts or "company-metadata" may have changed. Reads counters and the newest "DATE"; with the word "uncounted" where counters cannot tell (a foreign table, Citus, a function, track_counts = off), and then the rows of that day and the number of companies.';


--
-- Name: treemap_view_reads_source(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.treemap_view_reads_source() RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    -- A table that is renamed takes the view with it; another one of its old name is not read.
    SELECT count(DISTINCT d.refobjid) = 2
    FROM pg_rewrite r
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
    WHERE r.ev_class = to_regclass('public.mv_treemap_data')
        AND d.refobjid IN (to_regclass('public.shorts'), to_regclass('public."company-metadata"'))
$$;


ALTER FUNCTION public.treemap_view_reads_source() OWNER TO postgres;

--
-- Name: FUNCTION treemap_view_reads_source(); Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON FUNCTION public.treemap_view_reads_source() IS 'Whether mv_treemap_data reads the relations that are called public.shorts and public."company-metadata" now.';


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: company-metadata; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public."company-metadata" (
    stock_code text,
    company_name text,
    industry text
);


ALTER TABLE public."company-metadata" OWNER TO postgres;

--
-- Name: shorts; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.shorts (
    "DATE" timestamp without time zone,
    "PRODUCT" text,
    "PRODUCT_CODE" text,
    "REPORTED_SHORT_POSITIONS" double precision,
    "TOTAL_PRODUCT_IN_ISSUE" double precision,
    "PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS" double precision
);


ALTER TABLE public.shorts OWNER TO postgres;

--
-- Name: mv_treemap_data; Type: MATERIALIZED VIEW; Schema: public; Owner: postgres
--

CREATE MATERIALIZED VIEW public.mv_treemap_data
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_analyze_scale_factor='0.05') AS
 WITH anchor AS MATERIALIZED (
         SELECT max(shorts."DATE") AS day,
            clock_timestamp() AS refreshed
           FROM public.shorts
          WHERE ((shorts."DATE" >= '1900-01-01 00:00:00'::timestamp without time zone) AND (shorts."DATE" < (((now() AT TIME ZONE 'Australia/Sydney'::text))::date + 2)))
        ), period(name, reach) AS (
         VALUES ('3m'::text,'3 mons'::interval), ('6m'::text,'6 mons'::interval), ('1y'::text,'1 year'::interval), ('2y'::text,'2 years'::interval), ('5y'::text,'5 years'::interval), ('max'::text,'10 years'::interval)
        ), stock AS (
         SELECT DISTINCT ON ("company-metadata".stock_code) "company-metadata".stock_code AS code,
            "company-metadata".industry,
            "company-metadata".company_name AS name
           FROM public."company-metadata"
          WHERE (("company-metadata".stock_code ~ '[^[:space:]]'::text) AND ("company-metadata".industry ~ '[^[:space:]]'::text))
          ORDER BY "company-metadata".stock_code, "company-metadata".industry, "company-metadata".company_name
        )
 SELECT period.name AS period_name,
    stock.industry,
    stock.code AS product_code,
    stock.name AS company_name,
    latest.percent AS current_short_position,
    earliest.percent AS earliest_short_position,
        CASE
            WHEN (((abs(earliest.percent) >= (0.0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001)::double precision) AND (abs(earliest.percent) <= ('10000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision)) AND ((latest.percent >= (0.0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001)::double precision) AND (latest.percent <= ('10000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'::numeric)::double precision))) THEN (((latest.percent - earliest.percent) / earliest.percent) * (100)::double precision)
            ELSE NULL::double precision
        END AS percentage_change,
    latest.day AS latest_date,
    anchor.refreshed AS last_refreshed
   FROM ((((anchor
     CROSS JOIN stock)
     CROSS JOIN LATERAL ( SELECT s."DATE" AS day,
            public.treemap_percent(s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS") AS percent
           FROM public.shorts s
          WHERE ((s."PRODUCT_CODE" = stock.code) AND (s."DATE" >= (anchor.day - '6 mons'::interval)) AND (s."DATE" <= anchor.day) AND (public.treemap_percent(s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS") IS NOT NULL))
          ORDER BY s."DATE" DESC, (public.treemap_percent(s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS"))
         LIMIT 1) latest)
     JOIN period ON ((latest.day >= (anchor.day - period.reach))))
     CROSS JOIN LATERAL ( SELECT public.treemap_percent(s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS") AS percent
           FROM public.shorts s
          WHERE ((s."PRODUCT_CODE" = stock.code) AND (s."DATE" >= (anchor.day - period.reach)) AND (public.treemap_percent(s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS") IS NOT NULL))
          ORDER BY s."DATE", (public.treemap_percent(s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS"))
         LIMIT 1) earliest)
  WHERE ((latest.percent > (0)::double precision) AND (latest.percent < 'Infinity'::double precision))
  WITH NO DATA;


ALTER TABLE public.mv_treemap_data OWNER TO postgres;

--
-- Name: MATERIALIZED VIEW mv_treemap_data; Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON MATERIALIZED VIEW public.mv_treemap_data IS 'Short position per stock and look-back period, refreshed by refresh_treemap_data(). Definition 513aa0f3bc2457ce1b28d1f99cfe5f0c';


--
-- Name: treemap_refreshes; Type: TABLE; Schema: public; Owner: postgres
--

CREATE TABLE public.treemap_refreshes (
    id bigint DEFAULT ((EXTRACT(epoch FROM clock_timestamp()) * (1000000)::numeric))::bigint NOT NULL,
    tick timestamp with time zone,
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    last_refreshed timestamp with time zone,
    row_count bigint NOT NULL,
    data_date date,
    source_state text,
    who text NOT NULL,
    place text DEFAULT public.treemap_place() NOT NULL,
    future_rows bigint DEFAULT 0 NOT NULL
);


ALTER TABLE public.treemap_refreshes OWNER TO postgres;

--
-- Name: TABLE treemap_refreshes; Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON TABLE public.treemap_refreshes IS 'One row per refresh of mv_treemap_data, written in the transaction that refreshed; the newest 1,000 are kept. The newest is the one that finished last.';


--
-- Name: COLUMN treemap_refreshes.id; Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON COLUMN public.treemap_refreshes.id IS 'The instant of the entry, in microseconds since 1970; unique together with place.';


--
-- Name: COLUMN treemap_refreshes.tick; Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON COLUMN public.treemap_refreshes.tick IS 'The scheduled instant this refresh was for; NULL when called by hand.';


--
-- Name: COLUMN treemap_refreshes.last_refreshed; Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON COLUMN public.treemap_refreshes.last_refreshed IS 'The last_refreshed that this refresh gave to the rows of the view; NULL when it left no rows.';


--
-- Name: COLUMN treemap_refreshes.data_date; Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON COLUMN public.treemap_refreshes.data_date IS 'The anchor: the newest "DATE" in shorts that is not in the future, of what the view was computed from.';


--
-- Name: COLUMN treemap_refreshes.source_state; Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON COLUMN public.treemap_refreshes.source_state IS 'treemap_source_state() as that refresh began: when it differs from the present one, the source tables have changed since.';


--
-- Name: COLUMN treemap_refreshes.place; Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON COLUMN public.treemap_refreshes.place IS 'treemap_place() of the database that refreshed.';


--
-- Name: COLUMN treemap_refreshes.future_rows; Type: COMMENT; Schema: public; Owner: postgres
--

COMMENT ON COLUMN public.treemap_refreshes.future_rows IS 'Rows of shorts with a "DATE" in the future, which the view leaves out.';


--
-- Data for Name: company-metadata; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public."company-metadata" (stock_code, company_name, industry) FROM stdin;
AAA	AAA LTD	Materials
BBB	BBB LTD	Banks
CCC	CCC LTD	Energy
\.


--
-- Data for Name: shorts; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public.shorts ("DATE", "PRODUCT", "PRODUCT_CODE", "REPORTED_SHORT_POSITIONS", "TOTAL_PRODUCT_IN_ISSUE", "PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS") FROM stdin;
2023-12-20 00:00:00	AAA LTD	AAA	1	100	1.5
2023-12-20 00:00:00	BBB LTD	BBB	1	100	1.25
2023-12-20 00:00:00	CCC LTD	CCC	1	100	1.125
2023-12-28 00:00:00	AAA LTD	AAA	1	100	2.5
2023-12-28 00:00:00	BBB LTD	BBB	1	100	2.25
2023-12-28 00:00:00	CCC LTD	CCC	1	100	2.125
2023-12-29 00:00:00	AAA LTD	AAA	1	100	3.5
2023-12-29 00:00:00	BBB LTD	BBB	1	100	3.25
2023-12-29 00:00:00	CCC LTD	CCC	1	100	3.125
\.


--
-- Data for Name: treemap_refreshes; Type: TABLE DATA; Schema: public; Owner: postgres
--

COPY public.treemap_refreshes (id, tick, started_at, finished_at, last_refreshed, row_count, data_date, source_state, who, place, future_rows) FROM stdin;
1796036653033608	\N	2026-11-30 11:04:12.999204+00	2026-11-30 11:04:13.02895+00	\N	0	\N	24870.24877.2.49747.0.0.0.1796031711.850699	migration 006 by postgres	7713897464788465316.24869	0
1796036653101519	\N	2026-11-30 11:04:13.086949+00	2026-11-30 11:04:13.101524+00	2026-11-30 11:04:13.096813+00	18	2023-12-29	24870.24877.2.49747.0.0.0.1796031711.850699 2023-12-29 00:00:00.000000	postgres psql	7713897464788465316.24869	0
\.


--
-- Name: company-metadata company-metadata_stock_code_key; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public."company-metadata"
    ADD CONSTRAINT "company-metadata_stock_code_key" UNIQUE (stock_code);


--
-- Name: shorts shorts_DATE_PRODUCT_CODE_key; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.shorts
    ADD CONSTRAINT "shorts_DATE_PRODUCT_CODE_key" UNIQUE ("DATE", "PRODUCT_CODE");


--
-- Name: treemap_refreshes treemap_refreshes_pkey; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.treemap_refreshes
    ADD CONSTRAINT treemap_refreshes_pkey PRIMARY KEY (place, id);


--
-- Name: treemap_refreshes treemap_refreshes_place_tick_key; Type: CONSTRAINT; Schema: public; Owner: postgres
--

ALTER TABLE ONLY public.treemap_refreshes
    ADD CONSTRAINT treemap_refreshes_place_tick_key UNIQUE (place, tick);


--
-- Name: idx_mv_treemap_period_current; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX idx_mv_treemap_period_current ON public.mv_treemap_data USING btree (period_name, industry COLLATE "C", current_short_position DESC, product_code COLLATE "C");


--
-- Name: idx_mv_treemap_period_industry; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX idx_mv_treemap_period_industry ON public.mv_treemap_data USING btree (period_name, industry COLLATE "C", percentage_change DESC, product_code COLLATE "C") WHERE (percentage_change IS NOT NULL);


--
-- Name: idx_mv_treemap_product; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX idx_mv_treemap_product ON public.mv_treemap_data USING btree (product_code, period_name);


--
-- Name: idx_mv_treemap_refresh; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX idx_mv_treemap_refresh ON public.mv_treemap_data USING btree (last_refreshed DESC);


--
-- Name: idx_mv_treemap_unique; Type: INDEX; Schema: public; Owner: postgres
--

CREATE UNIQUE INDEX idx_mv_treemap_unique ON public.mv_treemap_data USING btree (period_name, product_code);


--
-- Name: idx_shorts_product_code_date; Type: INDEX; Schema: public; Owner: postgres
--

CREATE INDEX idx_shorts_product_code_date ON public.shorts USING btree ("PRODUCT_CODE", "DATE");


--
-- Name: FUNCTION get_treemap_data(p_period text, p_limit integer, p_view_mode text); Type: ACL; Schema: public; Owner: postgres
--

REVOKE ALL ON FUNCTION public.get_treemap_data(p_period text, p_limit integer, p_view_mode text) FROM PUBLIC;


--
-- Name: FUNCTION refresh_treemap_data(p_tick timestamp with time zone, p_who text, p_if_source_changed boolean, OUT outcome text, OUT row_count bigint, OUT data_date date, OUT seconds double precision); Type: ACL; Schema: public; Owner: postgres
--

REVOKE ALL ON FUNCTION public.refresh_treemap_data(p_tick timestamp with time zone, p_who text, p_if_source_changed boolean, OUT outcome text, OUT row_count bigint, OUT data_date date, OUT seconds double precision) FROM PUBLIC;


--
-- Name: FUNCTION treemap_build_view(); Type: ACL; Schema: public; Owner: postgres
--

REVOKE ALL ON FUNCTION public.treemap_build_view() FROM PUBLIC;


--
-- Name: FUNCTION treemap_column_differences(); Type: ACL; Schema: public; Owner: postgres
--

REVOKE ALL ON FUNCTION public.treemap_column_differences() FROM PUBLIC;


--
-- Name: FUNCTION treemap_percent(percent double precision); Type: ACL; Schema: public; Owner: postgres
--

REVOKE ALL ON FUNCTION public.treemap_percent(percent double precision) FROM PUBLIC;


--
-- Name: FUNCTION treemap_percent(percent text); Type: ACL; Schema: public; Owner: postgres
--

REVOKE ALL ON FUNCTION public.treemap_percent(percent text) FROM PUBLIC;


--
-- Name: FUNCTION treemap_place(); Type: ACL; Schema: public; Owner: postgres
--

REVOKE ALL ON FUNCTION public.treemap_place() FROM PUBLIC;


--
-- Name: FUNCTION treemap_require_columns(); Type: ACL; Schema: public; Owner: postgres
--

REVOKE ALL ON FUNCTION public.treemap_require_columns() FROM PUBLIC;


--
-- Name: FUNCTION treemap_source_facts(OUT newest date, OUT newest_stocks bigint, OUT usual_stocks bigint, OUT newest_figures date, OUT timed_rows bigint, OUT future_rows bigint, OUT future_first text, OUT future_last text, OUT seen boolean, OUT uncounted boolean); Type: ACL; Schema: public; Owner: postgres
--

REVOKE ALL ON FUNCTION public.treemap_source_facts(OUT newest date, OUT newest_stocks bigint, OUT usual_stocks bigint, OUT newest_figures date, OUT timed_rows bigint, OUT future_rows bigint, OUT future_first text, OUT future_last text, OUT seen boolean, OUT uncounted boolean) FROM PUBLIC;


--
-- Name: FUNCTION treemap_source_state(); Type: ACL; Schema: public; Owner: postgres
--

REVOKE ALL ON FUNCTION public.treemap_source_state() FROM PUBLIC;


--
-- Name: FUNCTION treemap_view_reads_source(); Type: ACL; Schema: public; Owner: postgres
--

REVOKE ALL ON FUNCTION public.treemap_view_reads_source() FROM PUBLIC;


--
-- Name: mv_treemap_data; Type: MATERIALIZED VIEW DATA; Schema: public; Owner: postgres
--

REFRESH MATERIALIZED VIEW public.mv_treemap_data;


--
-- PostgreSQL database dump complete
--


