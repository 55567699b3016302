-- How fresh the view is, as a row named freshness: the head of each statement that needs it.
WITH freshness AS MATERIALIZED (
    SELECT newest.last_refreshed,
        -- The anchor as it was logged by that refresh; after a plain REFRESH by hand, the newest date in the view.
        coalesce(log.data_date, (SELECT max(latest_date)::date FROM public.mv_treemap_data)) AS data_date,
        coalesce(log.future_rows, 0) AS future_rows
    FROM (SELECT max(last_refreshed) AS last_refreshed FROM public.mv_treemap_data) AS newest
    LEFT JOIN LATERAL (
        -- By way of JSON: the log of before migration 006 has no such column, and is served all the same.
        SELECT logged.data_date, (to_jsonb(logged) ->> 'future_rows')::bigint AS future_rows
        FROM public.treemap_refreshes AS logged
        WHERE logged.last_refreshed = newest.last_refreshed
        ORDER BY logged.finished_at DESC
        LIMIT 1
    ) AS log ON true
)
