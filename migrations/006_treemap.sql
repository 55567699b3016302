-- Everything that the treemap needs in Postgres: this file alone is the whole of it. It works on an empty database, on the published
-- view, and after 001, 004 and 005 with a log. Safe to run again: what is as it says is left alone, and the log is kept.
-- Rolled back by down/006_treemap.sql. Backslashes stand only in strings of the form E'', so that it does not depend on standard_conforming_strings.

-- 1. The source tables, in production's shape. Where a pipeline owns them, only an index that is missing is added. Nothing here is
--    ever rolled back: no command of the treemap service drops source data.

CREATE TABLE IF NOT EXISTS public.shorts (
    "DATE" timestamp,
    "PRODUCT" text,
    "PRODUCT_CODE" text,
    "REPORTED_SHORT_POSITIONS" double precision,
    "TOTAL_PRODUCT_IN_ISSUE" double precision,
    "PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS" double precision,
    UNIQUE ("DATE", "PRODUCT_CODE")
) USING heap;

CREATE TABLE IF NOT EXISTS public."company-metadata" (
    stock_code text UNIQUE,
    company_name text,
    industry text
) USING heap;

-- Which columns the treemap can read, and how its log has to be. The one list: `treemap migrate --check` runs this text as well, also where
-- nothing is migrated yet.
CREATE OR REPLACE FUNCTION public.treemap_column_differences()
RETURNS TABLE (relation text, difference text, hint text)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
AS $columns$
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
$columns$;

COMMENT ON FUNCTION public.treemap_column_differences() IS
    'What in the columns of shorts and "company-metadata" the treemap cannot read, and what differs in its log.';

CREATE OR REPLACE FUNCTION public.treemap_require_columns()
RETURNS void
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $require$
DECLARE
    v_found record;
BEGIN
    FOR v_found IN SELECT difference, hint FROM public.treemap_column_differences() WHERE relation <> 'public.treemap_refreshes' LOOP
        RAISE EXCEPTION '%', v_found.difference USING ERRCODE = 'datatype_mismatch', HINT = v_found.hint;
    END LOOP;
END
$require$;

COMMENT ON FUNCTION public.treemap_require_columns() IS
    'Fails when the treemap cannot read a column of shorts or "company-metadata".';

-- The view looks up the newest "DATE", and each stock's first and last report of a period. Any index that starts with these columns
-- will do, whatever it is called. A view or a foreign table has no indexes: those of the table below it serve.
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('idx_shorts_date', ARRAY['DATE']::name[]),
            ('idx_shorts_product_code_date', ARRAY['PRODUCT_CODE', 'DATE']::name[])
        ) AS index (name, columns)
        WHERE (SELECT relkind IN ('r', 'p') FROM pg_catalog.pg_class WHERE oid = 'public.shorts'::regclass)
    LOOP
        IF NOT EXISTS (
            SELECT
            FROM pg_catalog.pg_index i
            WHERE i.indrelid = 'public.shorts'::regclass AND i.indisvalid AND i.indpred IS NULL
                AND wanted.columns = ARRAY(
                    SELECT a.attname
                    FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS key (attnum, place)
                    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.attnum
                    WHERE key.place <= cardinality(wanted.columns)
                    ORDER BY key.place
                )
        ) THEN
            -- A table that was renamed keeps its indexes, and their names. Without a name, Postgres finds one.
            EXECUTE format('CREATE INDEX %s ON public.shorts (%s)',
                CASE WHEN to_regclass(format('public.%I', wanted.name)) IS NULL THEN quote_ident(wanted.name) END,
                (SELECT string_agg(quote_ident(c), ', ') FROM unnest(wanted.columns) AS c));
        END IF;
    END LOOP;
END
$$;

-- 2. The log of refreshes.

-- Which database this is. Rows of the log that a restore or a subscription has brought from another one do not count here.
CREATE OR REPLACE FUNCTION public.treemap_place()
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $place$
    SELECT concat_ws('.', (SELECT system_identifier FROM pg_control_system()), d.oid) FROM pg_database d WHERE d.datname = current_database()
$place$;

COMMENT ON FUNCTION public.treemap_place() IS
    'The cluster and the database, as a text that no other database has.';

CREATE TABLE IF NOT EXISTS public.treemap_refreshes (
    id bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    tick timestamptz,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    last_refreshed timestamptz,
    row_count bigint NOT NULL,
    data_date date,
    source_state text,
    who text NOT NULL,
    place text NOT NULL DEFAULT public.treemap_place(),
    future_rows bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (place, id),
    UNIQUE (place, tick)
) USING heap;

-- Whatever is there: the numbered log of 004 (its numbers and ticks collided with those that a restore or a subscription brought from
-- another database; now a key is an instant, and names its database), or a copy without defaults and key.
DO $$
DECLARE
    v_index record;
    v_difference text;
BEGIN
    IF EXISTS (SELECT FROM public.treemap_column_differences() WHERE relation = 'public.treemap_refreshes') THEN
        ALTER TABLE public.treemap_refreshes
            ADD COLUMN IF NOT EXISTS id bigint, ADD COLUMN IF NOT EXISTS tick timestamptz, ADD COLUMN IF NOT EXISTS started_at timestamptz,
            ADD COLUMN IF NOT EXISTS finished_at timestamptz, ADD COLUMN IF NOT EXISTS last_refreshed timestamptz,
            ADD COLUMN IF NOT EXISTS row_count bigint, ADD COLUMN IF NOT EXISTS data_date date, ADD COLUMN IF NOT EXISTS source_state text,
            ADD COLUMN IF NOT EXISTS who text, ADD COLUMN IF NOT EXISTS place text, ADD COLUMN IF NOT EXISTS future_rows bigint;
        ALTER TABLE public.treemap_refreshes ALTER id DROP IDENTITY IF EXISTS;
        FOR v_index IN
            SELECT i.indexrelid::regclass AS name, c.conname
            FROM pg_catalog.pg_index i LEFT JOIN pg_catalog.pg_constraint c ON c.conindid = i.indexrelid AND c.conrelid = i.indrelid
            WHERE i.indrelid = 'public.treemap_refreshes'::regclass AND i.indisunique
        LOOP
            IF v_index.conname IS NULL THEN
                EXECUTE format('DROP INDEX %s', v_index.name);
            ELSE
                EXECUTE format('ALTER TABLE public.treemap_refreshes DROP CONSTRAINT %I', v_index.conname);
            END IF;
        END LOOP;
        DELETE FROM public.treemap_refreshes WHERE started_at IS NULL OR finished_at IS NULL OR row_count IS NULL OR who IS NULL;
        -- They were written here, as far as anybody knows.
        UPDATE public.treemap_refreshes
        SET place = coalesce(place, public.treemap_place()), id = coalesce(id, (extract(epoch FROM finished_at) * 1000000)::bigint),
            future_rows = coalesce(future_rows, 0)
        WHERE place IS NULL OR id IS NULL OR future_rows IS NULL;
        DELETE FROM public.treemap_refreshes log USING public.treemap_refreshes other
        WHERE log.place = other.place AND log.id = other.id AND log.ctid < other.ctid;
        UPDATE public.treemap_refreshes log SET tick = NULL
        FROM public.treemap_refreshes other
        WHERE log.place = other.place AND log.tick = other.tick AND log.id < other.id;
        ALTER TABLE public.treemap_refreshes
            ALTER id SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
            ALTER started_at SET NOT NULL, ALTER finished_at SET NOT NULL, ALTER row_count SET NOT NULL, ALTER who SET NOT NULL,
            ALTER place SET DEFAULT public.treemap_place(), ALTER future_rows SET DEFAULT 0, ALTER future_rows SET NOT NULL,
            ADD PRIMARY KEY (place, id), ADD UNIQUE (place, tick);
        FOR v_difference IN SELECT difference FROM public.treemap_column_differences() WHERE relation = 'public.treemap_refreshes' LOOP
            RAISE EXCEPTION '%', v_difference USING ERRCODE = 'datatype_mismatch', HINT = 'Rename or drop that table: a new one is created.';
        END LOOP;
    END IF;
END
$$;

COMMENT ON TABLE public.treemap_refreshes IS
    'One row per refresh of mv_treemap_data, written in the transaction that refreshed; the newest 1,000 are kept. The newest is the one that finished last.';
COMMENT ON COLUMN public.treemap_refreshes.id IS
    'The instant of the entry, in microseconds since 1970; unique together with place.';
COMMENT ON COLUMN public.treemap_refreshes.tick IS
    'The scheduled instant this refresh was for; NULL when called by hand.';
COMMENT ON COLUMN public.treemap_refreshes.last_refreshed IS
    'The last_refreshed that this refresh gave to the rows of the view; NULL when it left no rows.';
COMMENT ON COLUMN public.treemap_refreshes.data_date IS
    'The anchor: the newest "DATE" in shorts that is not in the future, of what the view was computed from.';
COMMENT ON COLUMN public.treemap_refreshes.source_state IS
    'treemap_source_state() as that refresh began: when it differs from the present one, the source tables have changed since.';
COMMENT ON COLUMN public.treemap_refreshes.place IS
    'treemap_place() of the database that refreshed.';
COMMENT ON COLUMN public.treemap_refreshes.future_rows IS
    'Rows of shorts with a "DATE" in the future, which the view leaves out.';

-- 3. Has the source changed?

CREATE OR REPLACE FUNCTION public.treemap_source_state()
RETURNS text
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
-- Shorter than deadlock_timeout: a pipeline at work is not made to wait.
SET lock_timeout = '100ms'
AS $state$
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
$state$;

COMMENT ON FUNCTION public.treemap_source_state() IS
    'Differs when rows of shorts or "company-metadata" may have changed. Reads counters and the newest "DATE"; with the word "uncounted" where counters cannot tell (a foreign table, Citus, a function, track_counts = off), and then the rows of that day and the number of companies.';

-- 4. The view.

-- A percent is read as `treemap load` reads it: what is no number is no position, and never an error. A comma may separate thousands or
-- begin a fraction, so with one it is none. Blanks are the same under every collation, the no-break ones too: hence COLLATE, and E with
-- doubled backslashes, which every session reads alike. The length keeps the number within the bounds of its type.
CREATE OR REPLACE FUNCTION public.treemap_percent(percent text)
RETURNS double precision
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
AS $percent$
    SELECT CASE
        WHEN length(percent) <= 100 AND percent COLLATE "C" ~ (
            E'^[[:space:]\\u00a0\\u2000-\\u200a\\u202f\\u205f\\u3000]*[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?'
            || E'[[:space:]\\u00a0\\u2000-\\u200a\\u202f\\u205f\\u3000]*%?[[:space:]\\u00a0\\u2000-\\u200a\\u202f\\u205f\\u3000]*$')
        THEN substring(percent COLLATE "C" FROM '[-+.0-9eE]+')::double precision
    END
$percent$;
-- The usual type passes as it is. Postgres inlines the function, so that it costs nothing.
CREATE OR REPLACE FUNCTION public.treemap_percent(percent double precision)
RETURNS double precision
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
AS $same$
    SELECT percent
$same$;

CREATE OR REPLACE FUNCTION public.treemap_build_view()
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET default_table_access_method = heap
SET extra_float_digits = 1
AS $build$
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
$build$;

COMMENT ON FUNCTION public.treemap_build_view() IS
    'Creates mv_treemap_data, or replaces one that is another version or reads other tables. Called by the migration and by refresh_treemap_data().';

CREATE OR REPLACE FUNCTION public.treemap_view_reads_source()
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $reads$
    -- A table that is renamed takes the view with it; another one of its old name is not read.
    SELECT count(DISTINCT d.refobjid) = 2
    FROM pg_rewrite r
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
    WHERE r.ev_class = to_regclass('public.mv_treemap_data')
        AND d.refobjid IN (to_regclass('public.shorts'), to_regclass('public."company-metadata"'))
$reads$;

COMMENT ON FUNCTION public.treemap_view_reads_source() IS
    'Whether mv_treemap_data reads the relations that are called public.shorts and public."company-metadata" now.';

-- 5. The refresh.

-- The published functions have other results (void) or parameters; a function with the same parameters stays.
DO $$
BEGIN
    IF to_regprocedure('public.refresh_treemap_data()') IS NOT NULL THEN
        DROP FUNCTION public.refresh_treemap_data();
    END IF;
END
$$;

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
SET row_security = off
-- Postgres composes statements for a concurrent refresh that fail where it is on.
SET quote_all_identifiers = off
SET default_table_access_method = heap
SET extra_float_digits = 1
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

CREATE OR REPLACE FUNCTION public.treemap_source_facts(
    OUT newest date,
    OUT newest_stocks bigint,
    OUT usual_stocks bigint,
    OUT newest_figures date,
    OUT timed_rows bigint,
    OUT future_rows bigint,
    OUT future_first text,
    OUT future_last text,
    OUT seen boolean,
    OUT uncounted boolean
)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET lock_timeout = '500ms'
SET jit = off
AS $facts$
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
$facts$;

COMMENT ON FUNCTION public.treemap_source_facts() IS
    'What of shorts people should look at, and whether the view has seen all of it; for treemap status.';

-- 6. Build the view, and log that as a refresh.

DO $$
DECLARE
    v_started constant timestamptz := clock_timestamp();
    v_owner constant name := (SELECT pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid = to_regclass('public.mv_treemap_data'));
BEGIN
    IF public.treemap_build_view() THEN
        INSERT INTO public.treemap_refreshes
            (started_at, finished_at, last_refreshed, row_count, data_date, source_state, who, future_rows)
        SELECT v_started, clock_timestamp(), max(last_refreshed), count(*),
            (SELECT max("DATE")::date FROM public.shorts
                WHERE "DATE" >= '1900-01-01' AND "DATE" < (now() AT TIME ZONE 'Australia/Sydney')::date + 2),
            public.treemap_source_state(), concat_ws(' ', 'migration 006 by', session_user),
            (SELECT count(*) FROM public.shorts WHERE "DATE" >= (now() AT TIME ZONE 'Australia/Sydney')::date + 2)
        FROM public.mv_treemap_data;
        PERFORM pg_notify('treemap_refreshed', 'migrated');
        IF v_owner <> current_user AND pg_has_role(v_owner, 'MEMBER') THEN
            EXECUTE format('ALTER MATERIALIZED VIEW public.mv_treemap_data OWNER TO %I', v_owner);
        END IF;
    END IF;
END
$$;

-- 7. Owners and privileges.

-- The functions run as their owner, and only the owner of the view can refresh it: so all of them belong to one role.
DO $$
DECLARE
    v_owner constant name := (SELECT pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid = 'public.mv_treemap_data'::regclass);
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT oid::regprocedure
        FROM pg_catalog.pg_proc
        WHERE pronamespace = 'public'::regnamespace AND pg_get_userbyid(proowner) <> v_owner
            AND proname IN ('treemap_place', 'treemap_source_state', 'treemap_source_facts', 'treemap_percent', 'treemap_build_view',
                'treemap_view_reads_source', 'treemap_column_differences', 'treemap_require_columns', 'refresh_treemap_data', 'get_treemap_data')
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO %I', v_function, v_owner);
    END LOOP;
    IF (SELECT pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid = 'public.treemap_refreshes'::regclass) <> v_owner THEN
        EXECUTE format('ALTER TABLE public.treemap_refreshes OWNER TO %I', v_owner);
    END IF;
END
$$;

-- Closed to everyone but the owner and those granted below. PUBLIC may execute any new function, and Supabase opens all of
-- schema public to anon and authenticated as REST and GraphQL: neither default is relied on.
DO $$
DECLARE
    v_functions constant text := 'public.refresh_treemap_data(timestamptz, text, boolean), public.get_treemap_data(text, integer, text), '
        'public.treemap_source_state(), public.treemap_place(), public.treemap_view_reads_source(), public.treemap_build_view(), '
        'public.treemap_percent(text), public.treemap_percent(double precision), public.treemap_source_facts(), '
        'public.treemap_column_differences(), public.treemap_require_columns()';
    v_role text;
BEGIN
    FOR v_role IN
        SELECT 'PUBLIC'
        UNION ALL
        SELECT quote_ident(rolname) FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated')
    LOOP
        EXECUTE format('REVOKE ALL ON public.mv_treemap_data, public.treemap_refreshes FROM %s', v_role);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s', v_functions, v_role);
    END LOOP;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'service_role') THEN
        GRANT SELECT ON public.mv_treemap_data, public.treemap_refreshes TO service_role;
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO service_role', v_functions);
    END IF;
END
$$;
