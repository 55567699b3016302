-- Continues freshness.sql: what the view holds. Fails when the view is missing or was never filled: the caller asks the catalog first.
SELECT
    (SELECT count(*) FROM public.mv_treemap_data) AS rows,
    (SELECT count(DISTINCT industry) FROM public.mv_treemap_data) AS industries,
    ARRAY(SELECT period_name FROM public.mv_treemap_data GROUP BY period_name ORDER BY period_name COLLATE "C") AS periods,
    ARRAY(SELECT count(*) FROM public.mv_treemap_data GROUP BY period_name ORDER BY period_name COLLATE "C") AS stocks,
    last_refreshed,
    data_date,
    future_rows
FROM freshness
