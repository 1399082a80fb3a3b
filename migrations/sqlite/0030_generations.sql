-- Which embedding model answers each tenant, and which ones are being made ready or kept for a way back.

-- Embedding models whose vectors this installation keeps, each in an index of its own; without secrets.
create table embedding_space (
    -- Model and length of its vectors.
    name text primary key,
    -- Null: words alone.
    model text,
    dimension integer,
    -- How the model is loaded again when the configuration names another one.
    settings text not null,
    -- Which making of the index documents were put into; another one has to be filled anew.
    making text,
    created_at text not null
);

-- A tenant's chunks in the index of one embedding model.
create table generation (
    id blob primary key,
    tenant_id blob not null references tenant (id) on delete cascade,
    space text not null references embedding_space (name),
    -- building, ready (complete, not in use), live, standby (was live, kept complete), or retired.
    state text not null,
    -- Goes live by itself once it is complete.
    activates boolean not null,
    -- All documents up to this one were put in; null: none.
    filled_to blob,
    -- All documents of the beginning were put in.
    is_filled boolean not null,
    chunk_count integer not null,
    done_count integer not null,
    -- How it and the live one answered the same questions.
    comparison text,
    created_at text not null,
    ready_at text,
    activated_at text,
    -- When it was live last.
    left_at text,
    -- It was live and was taken back: it does not go live by itself again.
    rolled_back_at text
);
create index generation_tenant on generation (tenant_id, id);
create index generation_space on generation (space);
create unique index generation_live on generation (tenant_id) where state = 'live';
create unique index generation_open on generation (tenant_id, space) where state <> 'retired';

-- Documents whose chunks changed while a generation was not written to.
create table generation_gap (
    generation_id blob not null references generation (id) on delete cascade,
    document_id blob not null references document (id) on delete cascade,
    tenant_id blob not null references tenant (id) on delete cascade,
    -- Differs with every change.
    mark blob not null,
    primary key (generation_id, document_id)
);
create index generation_gap_document on generation_gap (document_id, tenant_id);
