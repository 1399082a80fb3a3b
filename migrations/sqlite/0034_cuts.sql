-- How the documents of sources are cut: the chunks that answer, those of another cut that is tried beside them, and those that are
-- kept for a way back.

-- One way of cutting the documents of a source. A source without any has its first one.
create table cut (
    -- In the index it stands in the place of the source. The first cut of a source has the source's id.
    id blob primary key,
    tenant_id blob not null references tenant (id) on delete cascade,
    source_id blob not null references source (id) on delete cascade,
    chunking text not null,
    -- building, ready (complete, not in use), live, standby (was live, kept complete), or retired.
    state text not null,
    -- Goes live by itself once it is complete.
    activates boolean not null,
    -- All documents up to this one were cut; null: none.
    filled_to blob,
    -- All documents of the beginning were cut.
    is_filled boolean not null,
    -- Chunks that the documents had when it was begun, and those of them whose documents are cut.
    chunk_count integer not null,
    done_count integer not null,
    -- How it and the live one answered the same questions.
    comparison text,
    created_at text not null,
    ready_at text,
    activated_at text,
    -- When it was live last.
    left_at text,
    -- It was live and was taken back.
    rolled_back_at text
);
create index cut_tenant on cut (tenant_id, id);
create index cut_source on cut (source_id, tenant_id, id);
create unique index cut_live on cut (source_id) where state = 'live';

-- Documents that changed while they were cut for the live cut only.
create table cut_gap (
    cut_id blob not null references cut (id) on delete cascade,
    document_id blob not null references document (id) on delete cascade,
    tenant_id blob not null references tenant (id) on delete cascade,
    -- Differs with every change.
    mark blob not null,
    primary key (cut_id, document_id)
);
create index cut_gap_document on cut_gap (document_id, tenant_id);

-- How a cut that is being compared and the live one answered one question; gone when the comparison is made.
create table cut_answer (
    cut_id blob not null references cut (id) on delete cascade,
    -- Hash of the chatbot, the question and what is expected.
    question text not null,
    tenant_id blob not null references tenant (id) on delete cascade,
    -- As in generation_answer.
    overlap real,
    live_ndcg real,
    new_ndcg real,
    primary key (cut_id, question)
);
create index cut_answer_tenant on cut_answer (tenant_id);

-- Which cut a chunk is of; null: the first one of its source.
alter table chunk add column cut_id blob;
drop index chunk_source;
create index chunk_source on chunk (source_id, cut_id);

