-- The two tables that the pipeline owns, in production's shape, and the two indexes that the treemap view probes.
-- Where the pipeline has made the tables already, only an index that is missing is added. Nothing here is ever rolled
-- back: no command of the treemap service drops source data.

CREATE TABLE IF NOT EXISTS public.shorts (
    "DATE" timestamp,
    "PRODUCT" text,
    "PRODUCT_CODE" text,
    "REPORTED_SHORT_POSITIONS" double precision,
    "TOTAL_PRODUCT_IN_ISSUE" double precision,
    "PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS" double precision,
    UNIQUE ("DATE", "PRODUCT_CODE")
);

CREATE TABLE IF NOT EXISTS public."company-metadata" (
    stock_code text UNIQUE,
    company_name text,
    industry text
);

-- The view looks up the newest "DATE", and each stock's first and last report of a period. Any index that starts with
-- these columns will do, whatever it is called: production has one of several names, depending on its age.
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('idx_shorts_date', ARRAY['DATE']::name[]),
            ('idx_shorts_product_code_date', ARRAY['PRODUCT_CODE', 'DATE']::name[])
        ) AS index (name, columns)
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
            EXECUTE format('CREATE INDEX %I ON public.shorts (%s)', wanted.name,
                (SELECT string_agg(quote_ident(c), ', ') FROM unnest(wanted.columns) AS c));
        END IF;
    END LOOP;
END
$$;
