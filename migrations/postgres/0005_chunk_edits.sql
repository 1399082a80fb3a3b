-- Chunks in the owner's hands, and documents of any size.

-- Grows with each change of how a document is to be cut, so that work begun before it is not taken for its result.
alter table document add column cut_revision bigint not null default 0;

-- What an owner changed in a document's chunks. It belongs to the passage, not to the document's row: it outlives the
-- document's absence, and does not hold while its original passage is not in the document.
create table chunk_edit (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    source_id uuid not null references source (id) on delete cascade,
    external_id text not null,
    -- change: of a passage; addition: a chunk of its own.
    kind text not null,
    original_text text,
    original_hash text,
    -- How often the same passage comes before it.
    repeat bigint not null,
    heading text,
    -- Null: only switched off.
    text text,
    is_enabled boolean not null,
    is_stale boolean not null,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
create index chunk_edit_document on chunk_edit (tenant_id, source_id, external_id);
create unique index chunk_edit_passage on chunk_edit (source_id, external_id, original_hash, repeat) where kind = 'change';

alter table chunk add column edit_id uuid;
-- What stands in the document where the owner's words stand in `text`.
alter table chunk add column original_text text;
alter table chunk add column is_enabled boolean not null default true;

-- A document's text in parts of some megabytes.
alter table document_text add column part bigint not null default 0;
alter table document_text add column start_char bigint not null default 0;
alter table document_text drop constraint document_text_pkey;
alter table document_text add primary key (document_id, part);

-- A version of a large document while it is being indexed: chunks that are in the index already, and text.
create table staged_chunk (
    document_id uuid not null references document (id) on delete cascade,
    file_key text not null,
    cut_revision bigint not null,
    position bigint not null,
    tenant_id uuid not null references tenant (id) on delete cascade,
    id uuid not null,
    text text not null,
    heading text,
    page bigint,
    start_char bigint not null,
    end_char bigint not null,
    token_count bigint not null,
    prompt_token_count bigint not null,
    content_hash text not null,
    edit_id uuid,
    original_text text,
    is_enabled boolean not null,
    primary key (document_id, file_key, cut_revision, position)
);
create index staged_chunk_tenant on staged_chunk (tenant_id, document_id);

create table staged_text (
    document_id uuid not null references document (id) on delete cascade,
    file_key text not null,
    cut_revision bigint not null,
    part bigint not null,
    tenant_id uuid not null references tenant (id) on delete cascade,
    start_char bigint not null,
    text text not null,
    primary key (document_id, file_key, cut_revision, part)
);
create index staged_text_tenant on staged_text (tenant_id, document_id);

alter table chunk_edit enable row level security;
alter table chunk_edit force row level security;
create policy chunk_edit_wall on chunk_edit
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table staged_chunk enable row level security;
alter table staged_chunk force row level security;
create policy staged_chunk_wall on staged_chunk
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table staged_text enable row level security;
alter table staged_text force row level security;
create policy staged_text_wall on staged_text
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');
