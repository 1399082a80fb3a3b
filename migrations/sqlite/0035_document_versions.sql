-- A version of many chunks is brought to its place beside the one that answers, and takes over when one row says so.

-- Versions of documents that are brought in bit by bit. What is swapped in by one transaction gets the number of what is shown.
create table document_version (
    document_id blob not null references document (id) on delete cascade,
    -- The cut that its chunks are of.
    cut_id blob not null,
    -- As chunks and texts of it say. 0 has no row while it is shown; others are of one cut only.
    number integer not null,
    tenant_id blob not null references tenant (id) on delete cascade,
    -- waiting (to be whole), shown, or left (another one took its place: its rows are being deleted).
    state text not null,
    -- What it was made of.
    file_key text not null,
    cut_revision integer not null,
    -- The index holds its chunks before this position.
    ready_to integer not null,
    -- The attempt that works on it; a later one takes it over.
    attempt blob,
    primary key (document_id, cut_id, number)
);
create unique index document_version_shown on document_version (document_id, cut_id) where state = 'shown';
create index document_version_tenant on document_version (tenant_id, document_id);

-- Which part of what is in `document_text` is shown.
alter table document add column text_version integer not null default 0;

create table versioned_text (
    document_id blob not null references document (id) on delete cascade,
    version integer not null default 0,
    part integer not null,
    tenant_id blob not null references tenant (id) on delete cascade,
    content_hash text not null,
    start_char integer not null,
    text text not null,
    primary key (document_id, version, part)
);
insert into versioned_text (document_id, part, tenant_id, content_hash, start_char, text)
select document_id, part, tenant_id, content_hash, start_char, text from document_text;
drop table document_text;
alter table versioned_text rename to document_text;

-- A chunk that several versions have stands in the index once, and here once for each.
create table versioned_chunk (
    id blob not null,
    version integer not null default 0,
    tenant_id blob not null references tenant (id) on delete cascade,
    document_id blob not null references document (id) on delete cascade,
    source_id blob not null references source (id) on delete cascade,
    cut_id blob,
    position integer not null,
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
    is_enabled boolean not null default true,
    context text,
    primary key (id, version)
);
insert into versioned_chunk (id, tenant_id, document_id, source_id, cut_id, position, text, heading, page, start_char, end_char, token_count,
                             prompt_token_count, content_hash, edit_id, original_text, is_enabled, context)
select id, tenant_id, document_id, source_id, cut_id, position, text, heading, page, start_char, end_char, token_count,
       prompt_token_count, content_hash, edit_id, original_text, is_enabled, context
  from chunk;
drop table chunk;
alter table versioned_chunk rename to chunk;
create index chunk_document on chunk (document_id, tenant_id, position);
create index chunk_source on chunk (source_id, cut_id);
create index chunk_content on chunk (tenant_id, content_hash);

-- What was staged is done again.
drop table staged_chunk;
drop table staged_text;
