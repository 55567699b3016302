-- The source as it is now, and what of it the view has seen.
WITH day AS MATERIALIZED (
    SELECT "DATE" AS day, count(*) AS stocks
    FROM public.shorts
    WHERE "DATE" > (
            SELECT max("DATE") FROM public.shorts
            WHERE "DATE" >= '1900-01-01' AND "DATE" < (now() AT TIME ZONE 'Australia/Sydney')::date + 2
        ) - interval '30 days'
        AND "DATE" < (now() AT TIME ZONE 'Australia/Sydney')::date + 2
    GROUP BY "DATE"
)
SELECT
    (SELECT max(day)::date FROM day) AS newest,
    (SELECT stocks FROM day ORDER BY day DESC LIMIT 1) AS newest_stocks,
    -- The median of the days before it.
    (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY stocks)
        FROM (SELECT stocks FROM day ORDER BY day DESC OFFSET 1 LIMIT 10) AS before) AS usual_stocks,
    future.rows AS future_rows,
    future.first AS future_first,
    future.last AS future_last,
    (SELECT source_state FROM public.treemap_refreshes
        WHERE last_refreshed IS NOT DISTINCT FROM (SELECT max(last_refreshed) FROM public.mv_treemap_data)
        ORDER BY finished_at DESC LIMIT 1) IS NOT DISTINCT FROM state.now AS seen,
    coalesce(state.now LIKE '%uncounted%', false) AS uncounted
FROM (
    SELECT count(*) AS rows, min("DATE")::text AS first, max("DATE")::text AS last
    FROM public.shorts
    WHERE "DATE" >= (now() AT TIME ZONE 'Australia/Sydney')::date + 2
) AS future
CROSS JOIN (SELECT public.treemap_source_state() AS now) AS state
