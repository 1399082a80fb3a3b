-- A version of many chunks is brought to its place beside the one that answers, and takes over when one row says so.

-- Versions of documents that are brought in bit by bit. What is swapped in by one transaction gets the number of what is shown.
create table document_version (
    document_id uuid not null references document (id) on delete cascade,
    -- The cut that its chunks are of.
    cut_id uuid not null,
    -- As chunks and texts of it say. 0 has no row while it is shown; others are of one cut only.
    number bigint not null,
    tenant_id uuid not null references tenant (id) on delete cascade,
    -- waiting (to be whole), shown, or left (another one took its place: its rows are being deleted).
    state text not null,
    -- What it was made of.
    file_key text not null,
    cut_revision bigint not null,
    -- The index holds its chunks before this position.
    ready_to bigint not null,
    -- The attempt that works on it; a later one takes it over.
    attempt uuid,
    primary key (document_id, cut_id, number)
);
create unique index document_version_shown on document_version (document_id, cut_id) where state = 'shown';
create index document_version_tenant on document_version (tenant_id, document_id);

-- Which part of what is in `document_text` is shown.
alter table document add column text_version bigint not null default 0;

alter table document_text add column version bigint not null default 0;
alter table document_text drop constraint document_text_pkey;
alter table document_text add primary key (document_id, version, part);

-- A chunk that several versions have stands in the index once, and here once for each.
alter table chunk add column version bigint not null default 0;
alter table chunk drop constraint chunk_pkey;
alter table chunk add primary key (id, version);

-- What was staged is done again.
drop table staged_chunk;
drop table staged_text;

alter table document_version enable row level security;
alter table document_version force row level security;
create policy document_version_wall on document_version
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');
