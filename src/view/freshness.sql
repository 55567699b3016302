-- How fresh the view is, as a row named freshness: the head of each statement that needs it.
WITH freshness AS MATERIALIZED (
    SELECT newest.last_refreshed,
        -- The anchor as it was logged by that refresh; after a plain REFRESH by hand, the newest date in the view.
        coalesce(
            (SELECT log.data_date FROM public.treemap_refreshes log
                WHERE log.last_refreshed = newest.last_refreshed ORDER BY log.id DESC LIMIT 1),
            (SELECT max(latest_date)::date FROM public.mv_treemap_data)
        ) AS data_date
    FROM (SELECT max(last_refreshed) AS last_refreshed FROM public.mv_treemap_data) AS newest
)
