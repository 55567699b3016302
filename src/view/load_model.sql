-- Continues freshness.sql. All twelve lists in one statement, so that they agree with each other and with their freshness.
-- $1: the names of the periods; $2: the most stocks per industry that a list holds.
-- One row per industry of a list, in the order in which the lists are read; its stocks as arrays with their places, since an
-- aggregate promises no order. Each ranked window query reads one period and view mode, in the order of the index that
-- migration 004 made for it, and the window's run condition stops it early.
SELECT period.name AS period_name, view_mode, industry, product_codes, short_positions, places, last_refreshed, data_date, future_rows
FROM unnest($1::text[]) WITH ORDINALITY AS period (name, number)
CROSS JOIN LATERAL (
    SELECT 0 AS view_mode, industry COLLATE "C" AS industry, array_agg(product_code) AS product_codes,
        array_agg(short_position) AS short_positions, array_agg(place) AS places
    FROM (
        SELECT industry, product_code, current_short_position AS short_position, row_number() OVER (
            PARTITION BY industry COLLATE "C" ORDER BY current_short_position DESC, product_code COLLATE "C"
        ) AS place
        FROM public.mv_treemap_data
        WHERE period_name = period.name
    ) AS by_position
    WHERE place <= $2
    GROUP BY industry COLLATE "C"
    UNION ALL
    SELECT 1, industry COLLATE "C", array_agg(product_code), array_agg(percentage_change), array_agg(place)
    FROM (
        SELECT industry, product_code, percentage_change, row_number() OVER (
            PARTITION BY industry COLLATE "C" ORDER BY percentage_change DESC, product_code COLLATE "C"
        ) AS place
        FROM public.mv_treemap_data
        WHERE period_name = period.name AND percentage_change IS NOT NULL
    ) AS by_change
    WHERE place <= $2
    GROUP BY industry COLLATE "C"
) AS ranked
CROSS JOIN freshness
ORDER BY period.number, view_mode, industry
