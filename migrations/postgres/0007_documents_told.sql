-- What a document says of itself and how it was read, and documents that their owner does not want back.

-- Path of sections above a page, outermost first.
alter table document add column breadcrumbs jsonb;
alter table document alter column published_at type timestamptz using published_at::timestamptz;
-- Pages that are pictures without text.
alter table document add column scanned_pages bigint;
-- What it was read with last: what could not be read may be read by another reader.
alter table document add column read_with text;

-- Pages and files of a source whose documents were deleted by hand: runs do not bring them back.
create table source_exclusion (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    source_id uuid not null references source (id) on delete cascade,
    -- As in source_item.
    item_key text not null,
    url text,
    title text not null,
    created_at timestamptz not null
);
create unique index source_exclusion_item on source_exclusion (source_id, item_key);
create index source_exclusion_tenant on source_exclusion (tenant_id, source_id, id);

alter table source_exclusion enable row level security;
alter table source_exclusion force row level security;
create policy source_exclusion_wall on source_exclusion
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');
