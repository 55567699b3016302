-- Continues freshness.sql. All twelve lists in one statement, so that they agree with each other and with their freshness.
-- $1: the names of the periods; $2: the most stocks per industry that a list holds.
-- One row per industry of a list, in the order in which the lists are read; its stocks as arrays with their places, since an
-- aggregate promises no order. What is known of a stock comes with its rank by position. Its rank by change brings only its code, unless
-- some industry of the period has more stocks than a list holds: a stock may then have no rank by position.
-- Each ranked window query reads one period and view mode, in the order of the index that the migration made for it, and the window's run
-- condition passes over what is beyond $2. The rows of a period are sent while the next one is ranked. Nothing with many rows is joined to
-- the ranked queries: the planner might run them again for each of these.
, size AS MATERIALIZED (
    SELECT period_name, array_agg(industry) AS industries, array_agg(with_position) AS with_position,
        array_agg(with_change) AS with_change, max(with_position) > $2 AS is_large
    FROM (
        SELECT period_name, industry COLLATE "C" AS industry, count(*) AS with_position, count(percentage_change) AS with_change
        FROM public.mv_treemap_data
        GROUP BY period_name, industry COLLATE "C"
    ) AS by_industry
    GROUP BY period_name
)
SELECT period.name AS period_name, view_mode, industry, product_codes, company_names, currents, earliests, changes, report_dates, places,
    (CASE view_mode WHEN 0 THEN with_position ELSE with_change END)[array_position(industries, industry)] AS stock_count,
    last_refreshed, data_date, future_rows
FROM freshness
CROSS JOIN unnest($1::text[]) WITH ORDINALITY AS period (name, number)
JOIN size ON size.period_name = period.name
CROSS JOIN LATERAL (
    SELECT 0 AS view_mode, industry COLLATE "C" AS industry, array_agg(product_code) AS product_codes,
        array_agg(company_name) AS company_names, array_agg(current_short_position) AS currents,
        array_agg(earliest_short_position) AS earliests, array_agg(percentage_change) AS changes,
        array_agg(latest_date::date) AS report_dates, array_agg(place) AS places
    FROM (
        SELECT *, row_number() OVER (
            PARTITION BY industry COLLATE "C" ORDER BY current_short_position DESC, product_code COLLATE "C"
        ) AS place
        FROM public.mv_treemap_data
        WHERE period_name = period.name
    ) AS by_position
    WHERE place <= $2
    GROUP BY industry COLLATE "C"
    UNION ALL
    SELECT 1, industry COLLATE "C", array_agg(product_code), array_agg(company_name) FILTER (WHERE is_large),
        array_agg(current_short_position) FILTER (WHERE is_large), array_agg(earliest_short_position) FILTER (WHERE is_large),
        array_agg(percentage_change) FILTER (WHERE is_large), array_agg(latest_date::date) FILTER (WHERE is_large), array_agg(place)
    FROM (
        SELECT *, row_number() OVER (
            PARTITION BY industry COLLATE "C" ORDER BY percentage_change DESC, product_code COLLATE "C"
        ) AS place
        FROM public.mv_treemap_data
        WHERE period_name = period.name AND percentage_change IS NOT NULL
    ) AS by_change
    WHERE place <= $2
    GROUP BY industry COLLATE "C"
) AS ranked
ORDER BY period.number, view_mode, industry
