-- Rolls back 006 and all before it: drops the view, the refresh log and the functions. The source tables and their indexes stay.
-- Run by `treemap migrate --down`. Fails, changing nothing, when another object depends on the view.

DO $$
BEGIN
    DROP MATERIALIZED VIEW IF EXISTS public.mv_treemap_data RESTRICT;
    DROP FUNCTION IF EXISTS public.get_treemap_data(text, integer, text);
    DROP FUNCTION IF EXISTS public.refresh_treemap_data(timestamptz, text, boolean);
    DROP FUNCTION IF EXISTS public.treemap_build_view();
    DROP FUNCTION IF EXISTS public.treemap_view_reads_source();
    DROP FUNCTION IF EXISTS public.treemap_percent(text);
    DROP FUNCTION IF EXISTS public.treemap_percent(double precision);
    DROP FUNCTION IF EXISTS public.treemap_source_state();
    DROP FUNCTION IF EXISTS public.treemap_source_facts();
    DROP FUNCTION IF EXISTS public.treemap_require_columns();
    DROP FUNCTION IF EXISTS public.treemap_column_differences();
    DROP TABLE IF EXISTS public.treemap_refreshes;
    DROP FUNCTION IF EXISTS public.treemap_place();
END
$$;
