-- The treemap's read model in the database: mv_treemap_data, the log of its refreshes, and the functions that refresh and
-- read it. Safe to run again: the view is only replaced when its definition below is not the one in place, the
-- functions are always replaced, the log is kept. Rolled back by down/004_treemap_materialized_view.sql.

CREATE TABLE IF NOT EXISTS public.treemap_refreshes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tick timestamptz UNIQUE,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    last_refreshed timestamptz,
    row_count bigint NOT NULL,
    data_date date,
    source_state text,
    who text NOT NULL
);

COMMENT ON TABLE public.treemap_refreshes IS
    'One row per refresh of mv_treemap_data, written in the transaction that refreshed; the newest 1,000 are kept.';
COMMENT ON COLUMN public.treemap_refreshes.tick IS
    'The scheduled instant this refresh was for; NULL when called by hand.';
COMMENT ON COLUMN public.treemap_refreshes.last_refreshed IS
    'The last_refreshed that this refresh gave to the rows of the view; NULL when it left no rows.';
COMMENT ON COLUMN public.treemap_refreshes.data_date IS
    'The anchor: the newest "DATE" in shorts that the view was computed from.';
COMMENT ON COLUMN public.treemap_refreshes.source_state IS
    'treemap_source_state() as that refresh began: when it differs from today''s, the source tables have changed since.';

CREATE OR REPLACE FUNCTION public.treemap_source_state()
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $state$
    -- Postgres' own counters of what was inserted, updated and deleted, without a look at any row; the file's number
    -- tells of a TRUNCATE, which counts nothing. They may differ without a change (a rollback, a reset of the statistics,
    -- a VACUUM FULL): that costs a refresh too many, never one too few.
    SELECT string_agg(concat_ws('.', c.oid, c.relfilenode, pg_stat_get_tuples_inserted(c.oid),
        pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid)), ' ' ORDER BY c.relname)
    FROM pg_class c
    WHERE c.oid IN (to_regclass('public.shorts'), to_regclass('public."company-metadata"'))
$state$;

COMMENT ON FUNCTION public.treemap_source_state() IS
    'Differs when rows of shorts or "company-metadata" may have changed. Reads counters only.';

-- The published functions have other results (void) or parameters; a function with the same parameters stays.
DROP FUNCTION IF EXISTS public.refresh_treemap_data();

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

    PERFORM pg_advisory_xact_lock(hashtextextended('treemap.refresh', 0));
    v_started := clock_timestamp();

    IF EXISTS (SELECT FROM public.treemap_refreshes WHERE tick >= p_tick) THEN
        outcome := 'already done';
        RETURN;
    END IF;
    -- Read before the view is: a change in between is seen by this refresh and found again, never missed.
    v_source_state := public.treemap_source_state();
    IF p_if_source_changed AND v_source_state = (
        SELECT log.source_state FROM public.treemap_refreshes log ORDER BY log.id DESC LIMIT 1
    ) THEN
        outcome := 'already done';
        RETURN;
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
    DELETE FROM public.treemap_refreshes WHERE id <= v_id - 1000;

    PERFORM pg_notify('treemap_refreshed', v_id::text);
    outcome := 'refreshed';
    seconds := extract(epoch FROM clock_timestamp() - v_started);
END
$refresh$;

COMMENT ON FUNCTION public.refresh_treemap_data(timestamptz, text, boolean) IS
    'Refreshes mv_treemap_data without blocking its readers, logs it in treemap_refreshes and notifies the servers. Call it after loading reports.';

CREATE OR REPLACE FUNCTION public.get_treemap_data(
    p_period text,
    p_limit integer DEFAULT 10,
    p_view_mode text DEFAULT 'percentage_change'
)
RETURNS TABLE (industry text, product_code text, short_position double precision)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $ranked$
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
$ranked$;

COMMENT ON FUNCTION public.get_treemap_data(text, integer, text) IS
    'The top p_limit stocks of each industry for a period (3m, 6m, 1y, 2y, 5y, max) and view mode (CURRENT_CHANGE, PERCENTAGE_CHANGE).';

-- One statement, so that the old view is replaced by the new or left alone, also under a plain psql -f.
DO $$
DECLARE
    -- Per stock and period, index probes for the last and the first report: 100 x faster than window functions over a cross
    -- join of all reports. Of several rows for one stock and day the lowest percent counts, so that repeated rows change nothing.
    -- latest:   the last non-null percent within the period, at most 6 months before the anchor (the newest report): one
    --           probe serves all periods, for it is the same row in each that reaches back to it;
    -- earliest: the first non-null percent within the period. Periods reach back from the anchor, never from today.
    -- NaN and infinities are no position (in Postgres NaN > 0 holds, and sorts first), and no change can be told from
    -- an earliest of 0; the bounds on percentage_change keep the division from overflowing, which would fail the refresh.
    v_definition constant text := $view$
CREATE MATERIALIZED VIEW public.mv_treemap_data
WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05)
AS
WITH anchor AS MATERIALIZED (
    SELECT max("DATE") AS day, clock_timestamp() AS refreshed FROM public.shorts
),
period (name, reach) AS (
    VALUES ('3m', interval '3 months'), ('6m', interval '6 months'), ('1y', interval '1 year'),
        ('2y', interval '2 years'), ('5y', interval '5 years'), ('max', interval '10 years')
),
stock AS (
    SELECT DISTINCT ON (code) stock_code::text AS code, industry::text AS industry, company_name::text AS name
    FROM public."company-metadata"
    WHERE stock_code::text ~ '\S' AND industry::text ~ '\S'
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
    SELECT s."DATE" AS day, s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS"::double precision AS percent
    FROM public.shorts s
    WHERE s."PRODUCT_CODE" = stock.code
        AND s."DATE" >= anchor.day - interval '6 months'
        AND s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS" IS NOT NULL
    ORDER BY s."DATE" DESC, percent
    LIMIT 1
) AS latest
JOIN period ON latest.day >= anchor.day - period.reach
CROSS JOIN LATERAL (
    SELECT s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS"::double precision AS percent
    FROM public.shorts s
    WHERE s."PRODUCT_CODE" = stock.code
        AND s."DATE" >= anchor.day - period.reach
        AND s."PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS" IS NOT NULL
    ORDER BY s."DATE", percent
    LIMIT 1
) AS earliest
WHERE latest.percent > 0 AND latest.percent < 'Infinity'
$view$;
    -- Kept in the view's comment: it tells this definition from any other.
    v_comment constant text := 'Short position per stock and look-back period, refreshed by refresh_treemap_data(). Definition '
        || md5(v_definition);
    v_replace constant boolean :=
        obj_description(to_regclass('public.mv_treemap_data'), 'pg_class') IS DISTINCT FROM v_comment;
    v_started constant timestamptz := clock_timestamp();
    v_readers name[];
    v_reader name;
    v_detail text;
BEGIN
    IF v_replace THEN
        -- Whoever could read the old view can read the new one.
        SELECT array_agg(DISTINCT r.rolname) INTO v_readers
        FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) AS granted
        JOIN pg_catalog.pg_roles r ON r.oid = granted.grantee
        WHERE c.oid = to_regclass('public.mv_treemap_data') AND granted.privilege_type = 'SELECT';
        BEGIN
            DROP MATERIALIZED VIEW IF EXISTS public.mv_treemap_data RESTRICT;
        EXCEPTION WHEN dependent_objects_still_exist THEN
            GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL;
            RAISE dependent_objects_still_exist USING
                MESSAGE = 'mv_treemap_data was left as it is, because other objects depend on it',
                DETAIL = v_detail,
                HINT = 'Drop them, migrate, and create them again.';
        END;
        EXECUTE v_definition;
        EXECUTE format('COMMENT ON MATERIALIZED VIEW public.mv_treemap_data IS %L', v_comment);
        FOREACH v_reader IN ARRAY coalesce(v_readers, '{}') LOOP
            EXECUTE format('GRANT SELECT ON public.mv_treemap_data TO %I', v_reader);
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
        INSERT INTO public.treemap_refreshes
            (started_at, finished_at, last_refreshed, row_count, data_date, source_state, who)
        SELECT v_started, clock_timestamp(), max(last_refreshed), count(*),
            (SELECT max("DATE")::date FROM public.shorts), public.treemap_source_state(), concat_ws(' ', 'migration 004 by', session_user)
        FROM public.mv_treemap_data;
        PERFORM pg_notify('treemap_refreshed', 'migrated');
    END IF;
END
$$;

-- Closed to everyone but the owner and those granted below. PUBLIC may execute any new function, and Supabase opens all of
-- schema public to anon and authenticated as REST and GraphQL: neither default is relied on.
DO $$
DECLARE
    v_role text;
BEGIN
    FOR v_role IN
        SELECT 'PUBLIC'
        UNION ALL
        SELECT quote_ident(rolname) FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated')
    LOOP
        EXECUTE format('REVOKE ALL ON public.mv_treemap_data, public.treemap_refreshes FROM %s', v_role);
        EXECUTE format('REVOKE ALL ON FUNCTION public.refresh_treemap_data(timestamptz, text, boolean), public.get_treemap_data(text, integer, text), public.treemap_source_state() FROM %s', v_role);
    END LOOP;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'service_role') THEN
        GRANT SELECT ON public.mv_treemap_data, public.treemap_refreshes TO service_role;
        GRANT EXECUTE ON FUNCTION public.refresh_treemap_data(timestamptz, text, boolean), public.get_treemap_data(text, integer, text),
            public.treemap_source_state() TO service_role;
    END IF;
END
$$;
