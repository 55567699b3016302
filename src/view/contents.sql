-- What the view holds. Fails when it is missing or unpopulated: the caller has asked the catalog before.
SELECT
    count(*) AS rows,
    count(DISTINCT industry) AS industries,
    max(last_refreshed) AS last_refreshed,
    coalesce(
        (SELECT log.data_date FROM public.treemap_refreshes log
            WHERE log.last_refreshed = max(v.last_refreshed) ORDER BY log.id DESC LIMIT 1),
        max(latest_date)::date
    ) AS data_date,
    ARRAY(SELECT period_name FROM public.mv_treemap_data GROUP BY period_name ORDER BY period_name COLLATE "C") AS periods,
    ARRAY(SELECT count(*) FROM public.mv_treemap_data GROUP BY period_name ORDER BY period_name COLLATE "C") AS stocks
FROM public.mv_treemap_data v
