-- What differs between this database and the migrations of this binary, as sentences; no row when nothing does. The types of columns, and
-- the log: treemap_column_differences() in the migration.
-- $1: the view's definition; $2: the signatures of the functions; $3: their bodies. Each as the newest migration that defines it has it.
WITH source (relation, columns) AS (
    VALUES ('public.shorts', ARRAY['DATE', 'PRODUCT', 'PRODUCT_CODE', 'REPORTED_SHORT_POSITIONS', 'TOTAL_PRODUCT_IN_ISSUE',
            'PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS']),
        ('public."company-metadata"', ARRAY['stock_code', 'company_name', 'industry'])
),
view AS (
    SELECT oid, relispopulated, coalesce(obj_description(oid, 'pg_class'), '') AS comment
    FROM pg_catalog.pg_class
    WHERE oid = to_regclass('public.mv_treemap_data') AND relkind = 'm'
),
-- What refresh_treemap_data() runs as: the owner of the view, since nobody else may refresh it.
owner AS (
    SELECT r.oid, r.rolname AS name, r.rolsuper OR r.rolbypassrls AS sees_all_rows
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
    WHERE c.oid = to_regclass('public.mv_treemap_data')
),
-- Supabase opens schema public to the last two.
closed_to (oid, name) AS (
    SELECT 0::oid, 'anybody'
    UNION ALL
    SELECT oid, 'role ' || rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated')
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
SELECT 'materialized view public.mv_treemap_data reads another table than ' || relation || ': that was renamed, or made anew'
FROM view CROSS JOIN source
WHERE to_regclass(relation) IS NOT NULL AND NOT EXISTS (
    SELECT
    FROM pg_catalog.pg_rewrite r
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
    WHERE r.ev_class = view.oid AND d.refobjid = to_regclass(relation))
UNION ALL
SELECT format('function %s is missing or another than this version''s', signature)
FROM unnest($2::text[], $3::text[]) AS wanted (signature, body)
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE oid = to_regprocedure(signature) AND prosrc = body)
UNION ALL
SELECT format('function %s belongs to %s and the view to %s: it cannot refresh it', pg_proc.oid::regprocedure, pg_get_userbyid(proowner), owner.name)
FROM pg_catalog.pg_proc CROSS JOIN owner
WHERE pg_proc.oid IN (SELECT to_regprocedure(signature) FROM unnest($2::text[]) AS signature) AND proowner <> owner.oid
UNION ALL
SELECT format('table public.treemap_refreshes belongs to %s and the view to %s', pg_get_userbyid(relowner), owner.name)
FROM pg_catalog.pg_class CROSS JOIN owner
WHERE pg_class.oid = to_regclass('public.treemap_refreshes') AND relowner <> owner.oid
UNION ALL
SELECT format('role %s, which owns the view, may not read %s: GRANT SELECT ON %s TO %I', owner.name, relation, relation, owner.name)
FROM owner CROSS JOIN source
WHERE to_regclass(relation) IS NOT NULL AND NOT has_table_privilege(owner.oid, to_regclass(relation), 'SELECT')
UNION ALL
SELECT format('row level security of %s hides rows from role %s, which owns the view: ALTER ROLE %I BYPASSRLS, or '
    'ALTER TABLE %s DISABLE ROW LEVEL SECURITY', relation, owner.name, owner.name, relation)
FROM owner CROSS JOIN source JOIN pg_catalog.pg_class c ON c.oid = to_regclass(relation)
WHERE c.relrowsecurity AND NOT owner.sees_all_rows
    AND (c.relforcerowsecurity OR NOT pg_has_role(owner.oid, c.relowner, 'USAGE'))
UNION ALL
SELECT format('%s may call function %s: its privileges were lost', closed_to.name, f.oid::regprocedure)
FROM pg_catalog.pg_proc f CROSS JOIN closed_to
WHERE f.oid IN (SELECT to_regprocedure(signature) FROM unnest($2::text[]) AS signature) AND EXISTS (
    SELECT FROM aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) AS granted WHERE granted.grantee = closed_to.oid)
UNION ALL
SELECT format('%s may read %s', closed_to.name, c.oid::regclass)
FROM pg_catalog.pg_class c CROSS JOIN closed_to
WHERE c.oid IN (to_regclass('public.mv_treemap_data'), to_regclass('public.treemap_refreshes')) AND EXISTS (
    SELECT FROM aclexplode(c.relacl) AS granted WHERE granted.grantee = closed_to.oid)
