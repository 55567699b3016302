-- All twelve lists in one statement, so that they agree with each other and with the freshness they carry.
-- $1: the most stocks per industry that a list holds. One row per stock, in the order in which the lists are read.
-- Each half reads its rows from the index of its view mode (see migration 004), and the window's run condition cuts.
WITH ranked AS (
    SELECT * FROM (
        SELECT period_name, 0 AS view_mode, industry, product_code, current_short_position AS short_position,
            row_number() OVER (
                PARTITION BY period_name, industry COLLATE "C"
                ORDER BY current_short_position DESC, product_code COLLATE "C"
            ) AS place
        FROM public.mv_treemap_data
    ) AS by_position
    WHERE place <= $1
    UNION ALL
    SELECT * FROM (
        SELECT period_name, 1, industry, product_code, percentage_change,
            row_number() OVER (
                PARTITION BY period_name, industry COLLATE "C"
                ORDER BY percentage_change DESC, product_code COLLATE "C"
            ) AS place
        FROM public.mv_treemap_data
        WHERE percentage_change IS NOT NULL
    ) AS by_change
    WHERE place <= $1
),
freshness AS (
    SELECT newest.last_refreshed,
        -- The anchor as it was logged by that refresh; after a plain REFRESH by hand, the newest date in the view.
        coalesce(
            (SELECT log.data_date FROM public.treemap_refreshes log
                WHERE log.last_refreshed = newest.last_refreshed ORDER BY log.id DESC LIMIT 1),
            (SELECT max(latest_date)::date FROM public.mv_treemap_data)
        ) AS data_date
    FROM (SELECT max(last_refreshed) AS last_refreshed FROM public.mv_treemap_data) AS newest
)
SELECT period_name, view_mode, industry, product_code, short_position, last_refreshed, data_date
FROM ranked CROSS JOIN freshness
ORDER BY period_name COLLATE "C", view_mode, industry COLLATE "C", place
