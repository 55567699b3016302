-- What differs between this database and the migrations of this binary, as sentences; no row when nothing does.
-- $1: the view's definition; $2 to $4: the bodies of refresh_treemap_data, get_treemap_data and treemap_source_state, each as the
-- newest migration that defines it has it.
WITH source (relation, columns) AS (
    VALUES ('public.shorts', ARRAY['DATE', 'PRODUCT', 'PRODUCT_CODE', 'REPORTED_SHORT_POSITIONS', 'TOTAL_PRODUCT_IN_ISSUE',
            'PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS']),
        ('public."company-metadata"', ARRAY['stock_code', 'company_name', 'industry'])
),
view AS (
    SELECT oid, relispopulated, coalesce(obj_description(oid, 'pg_class'), '') AS comment
    FROM pg_catalog.pg_class
    WHERE oid = to_regclass('public.mv_treemap_data') AND relkind = 'm'
)
SELECT format('table %s is missing', relation) AS difference
FROM source
WHERE to_regclass(relation) IS NULL
UNION ALL
SELECT format('table %s has no column "%s"', relation, name)
FROM source, unnest(columns) AS name
WHERE to_regclass(relation) IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass(relation) AND attname = name AND NOT attisdropped)
UNION ALL
SELECT 'table public.treemap_refreshes is missing'
WHERE to_regclass('public.treemap_refreshes') IS NULL
UNION ALL
SELECT 'materialized view public.mv_treemap_data is missing'
WHERE NOT EXISTS (SELECT FROM view)
UNION ALL
SELECT 'materialized view public.mv_treemap_data has another definition than this version of treemap'
FROM view
WHERE NOT comment LIKE '%' || md5($1)
UNION ALL
SELECT format('materialized view public.mv_treemap_data has the columns (%s)', found.columns)
FROM (
    SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum) AS columns
    FROM view JOIN pg_catalog.pg_attribute ON attrelid = view.oid AND attnum > 0
) AS found
WHERE found.columns <> 'period_name text, industry text, product_code text, company_name text, '
    'current_short_position double precision, earliest_short_position double precision, '
    'percentage_change double precision, latest_date timestamp without time zone, last_refreshed timestamp with time zone'
UNION ALL
SELECT format('index %s is missing or unusable%s', wanted.name,
    CASE WHEN wanted.name = 'idx_mv_treemap_unique' THEN ': the view cannot be refreshed concurrently' END)
FROM view CROSS JOIN (VALUES ('idx_mv_treemap_unique'), ('idx_mv_treemap_period_industry'),
    ('idx_mv_treemap_period_current'), ('idx_mv_treemap_product'), ('idx_mv_treemap_refresh')) AS wanted (name)
WHERE NOT EXISTS (
    SELECT
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = view.oid AND c.relname = wanted.name AND i.indisvalid
        AND (wanted.name <> 'idx_mv_treemap_unique' OR i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL))
UNION ALL
SELECT format('function %s is missing or another than this version''s', wanted.signature)
FROM (VALUES ('public.refresh_treemap_data(timestamptz, text, boolean)', $2),
        ('public.get_treemap_data(text, integer, text)', $3), ('public.treemap_source_state()', $4))
    AS wanted (signature, body)
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE oid = to_regprocedure(wanted.signature) AND prosrc = wanted.body)
