-- The database objects of the treemap before this service: source tables with some varchar columns, a view without a
-- unique index, and functions with the same names but other definitions. With a few rows for the tests.
CREATE TABLE shorts (
    "DATE" timestamp, "PRODUCT" text, "PRODUCT_CODE" varchar(20), "REPORTED_SHORT_POSITIONS" double precision,
    "TOTAL_PRODUCT_IN_ISSUE" double precision, "PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS" double precision
);
CREATE TABLE "company-metadata" (stock_code varchar(50) UNIQUE, company_name varchar(255), sector text, industry varchar(100));
INSERT INTO shorts VALUES ('2023-12-01', 'ABC LTD', 'ABC', 1, 100, 1), ('2023-12-29', 'ABC LTD', 'ABC', 2, 100, 2);
INSERT INTO "company-metadata" VALUES ('ABC', 'ABC LIMITED', 'Money', 'Banks');
CREATE MATERIALIZED VIEW mv_treemap_data AS
SELECT '3m' AS period_name, m.industry, s."PRODUCT_CODE" AS product_code, m.company_name, 1::double precision AS current_short_position,
    1::double precision AS earliest_short_position, 0::double precision AS percentage_change, s."DATE" AS latest_date, now() AS last_refreshed
FROM shorts s JOIN "company-metadata" m ON m.stock_code = s."PRODUCT_CODE";
CREATE INDEX idx_mv_treemap_period_industry ON mv_treemap_data (period_name, industry, percentage_change DESC NULLS LAST);
CREATE INDEX idx_mv_treemap_period_current ON mv_treemap_data (period_name, current_short_position DESC);
CREATE INDEX idx_mv_treemap_product ON mv_treemap_data (product_code, period_name);
CREATE INDEX idx_mv_treemap_refresh ON mv_treemap_data (last_refreshed DESC);
CREATE FUNCTION refresh_treemap_data() RETURNS void LANGUAGE plpgsql AS
    'BEGIN REFRESH MATERIALIZED VIEW CONCURRENTLY mv_treemap_data; END';
CREATE FUNCTION get_treemap_data(p_period text, p_limit integer DEFAULT 10, p_view_mode text DEFAULT 'percentage_change')
RETURNS TABLE (industry text, product_code text, short_position double precision) LANGUAGE sql AS
    'SELECT industry, product_code, current_short_position FROM mv_treemap_data';
