-- SQLite has no row-level security: here every statement's own tenant_id is the wall. The file keeps the two
-- engines' migrations numbered alike.
select 1;
