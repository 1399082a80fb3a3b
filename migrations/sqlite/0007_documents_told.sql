-- What a document says of itself and how it was read, and documents that their owner does not want back.

-- Path of sections above a page, outermost first.
alter table document add column breadcrumbs text;
-- Pages that are pictures without text.
alter table document add column scanned_pages integer;
-- What it was read with last: what could not be read may be read by another reader.
alter table document add column read_with text;

-- Pages and files of a source whose documents were deleted by hand: runs do not bring them back.
create table source_exclusion (
    id blob primary key,
    tenant_id blob not null references tenant (id) on delete cascade,
    source_id blob not null references source (id) on delete cascade,
    -- As in source_item.
    item_key text not null,
    url text,
    title text not null,
    created_at text not null
);
create unique index source_exclusion_item on source_exclusion (source_id, item_key);
create index source_exclusion_tenant on source_exclusion (tenant_id, source_id, id);
