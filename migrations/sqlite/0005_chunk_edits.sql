-- Chunks in the owner's hands, and documents of any size.

-- Grows with each change of how a document is to be cut, so that work begun before it is not taken for its result.
alter table document add column cut_revision integer not null default 0;

-- What an owner changed in a document's chunks. It belongs to the passage, not to the document's row: it outlives the
-- document's absence, and does not hold while its original passage is not in the document.
create table chunk_edit (
    id blob primary key,
    tenant_id blob not null references tenant (id) on delete cascade,
    source_id blob not null references source (id) on delete cascade,
    external_id text not null,
    -- change: of a passage; addition: a chunk of its own.
    kind text not null,
    original_text text,
    original_hash text,
    -- How often the same passage comes before it.
    repeat integer not null,
    heading text,
    -- Null: only switched off.
    text text,
    is_enabled boolean not null,
    is_stale boolean not null,
    created_at text not null,
    updated_at text not null
);
create index chunk_edit_document on chunk_edit (tenant_id, source_id, external_id);
create unique index chunk_edit_passage on chunk_edit (source_id, external_id, original_hash, repeat) where kind = 'change';

alter table chunk add column edit_id blob;
-- What stands in the document where the owner's words stand in `text`.
alter table chunk add column original_text text;
alter table chunk add column is_enabled boolean not null default true;

-- A document's text in parts of some megabytes.
create table document_text_part (
    document_id blob not null references document (id) on delete cascade,
    part integer not null,
    tenant_id blob not null references tenant (id) on delete cascade,
    content_hash text not null,
    start_char integer not null,
    text text not null,
    primary key (document_id, part)
);
insert into document_text_part (document_id, part, tenant_id, content_hash, start_char, text)
select document_id, 0, tenant_id, content_hash, 0, text from document_text;
drop table document_text;
alter table document_text_part rename to document_text;

-- A version of a large document while it is being indexed: chunks that are in the index already, and text.
create table staged_chunk (
    document_id blob not null references document (id) on delete cascade,
    file_key text not null,
    cut_revision integer not null,
    position integer not null,
    tenant_id blob not null references tenant (id) on delete cascade,
    id blob not null,
    text text not null,
    heading text,
    page integer,
    start_char integer not null,
    end_char integer not null,
    token_count integer not null,
    prompt_token_count integer not null,
    content_hash text not null,
    edit_id blob,
    original_text text,
    is_enabled boolean not null,
    primary key (document_id, file_key, cut_revision, position)
);
create index staged_chunk_tenant on staged_chunk (tenant_id, document_id);

create table staged_text (
    document_id blob not null references document (id) on delete cascade,
    file_key text not null,
    cut_revision integer not null,
    part integer not null,
    tenant_id blob not null references tenant (id) on delete cascade,
    start_char integer not null,
    text text not null,
    primary key (document_id, file_key, cut_revision, part)
);
create index staged_text_tenant on staged_text (tenant_id, document_id);
