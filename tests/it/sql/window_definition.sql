-- The definition of the view in another form: window functions over a join of all reports with all periods.
-- Independent of migration 004 on purpose. Slow, and correct only if no stock has different percents on one day.
WITH anchor AS (
    SELECT max("DATE") AS day FROM shorts
),
periods (name, start) AS (
    SELECT p.name, anchor.day - p.reach::interval
    FROM anchor, (VALUES ('3m', '3 mon'), ('6m', '6 mon'), ('1y', '1 y'), ('2y', '2 y'), ('5y', '5 y'), ('max', '10 y')) AS p (name, reach)
),
placed AS (
    SELECT periods.name, "PRODUCT_CODE" AS code, "DATE" AS day,
        "PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS" AS percent,
        row_number() OVER (PARTITION BY periods.name, "PRODUCT_CODE" ORDER BY "DATE" DESC) AS from_last,
        row_number() OVER (PARTITION BY periods.name, "PRODUCT_CODE" ORDER BY "DATE") AS from_first
    FROM shorts JOIN periods ON "DATE" >= periods.start
    WHERE "PERCENT_OF_TOTAL_PRODUCT_IN_ISSUE_REPORTED_AS_SHORT_POSITIONS" IS NOT NULL
)
SELECT last.name AS period_name, company.industry, last.code AS product_code, company.company_name,
    last.percent AS current_short_position, first.percent AS earliest_short_position,
    CASE WHEN first.percent <> 0 THEN (last.percent - first.percent) / first.percent * 100 END AS percentage_change,
    last.day AS latest_date
FROM placed AS last
JOIN placed AS first USING (name, code)
JOIN "company-metadata" AS company ON company.stock_code = last.code
WHERE last.from_last = 1 AND first.from_first = 1
    AND last.day >= (SELECT day FROM anchor) - interval '6 mon'
    AND company.industry IS NOT NULL AND btrim(company.industry) <> ''
    AND last.percent > 0 AND last.percent NOT IN ('NaN', 'Infinity')
