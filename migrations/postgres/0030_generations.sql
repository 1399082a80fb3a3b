-- Which embedding model answers each tenant, and which ones are being made ready or kept for a way back.

-- Embedding models whose vectors this installation keeps, each in an index of its own; without secrets.
create table embedding_space (
    -- Model and length of its vectors.
    name text primary key,
    -- Null: words alone.
    model text,
    dimension bigint,
    -- How the model is loaded again when the configuration names another one.
    settings jsonb not null,
    -- Which making of the index documents were put into; another one has to be filled anew.
    making text,
    created_at timestamptz not null
);

-- A tenant's chunks in the index of one embedding model.
create table generation (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    space text not null references embedding_space (name),
    -- building, ready (complete, not in use), live, standby (was live, kept complete), or retired.
    state text not null,
    -- Goes live by itself once it is complete.
    activates boolean not null,
    -- All documents up to this one were put in; null: none.
    filled_to uuid,
    -- All documents of the beginning were put in.
    is_filled boolean not null,
    chunk_count bigint not null,
    done_count bigint not null,
    -- How it and the live one answered the same questions.
    comparison jsonb,
    created_at timestamptz not null,
    ready_at timestamptz,
    activated_at timestamptz,
    -- When it was live last.
    left_at timestamptz,
    -- It was live and was taken back: it does not go live by itself again.
    rolled_back_at timestamptz
);
create index generation_tenant on generation (tenant_id, id);
create index generation_space on generation (space);
create unique index generation_live on generation (tenant_id) where state = 'live';
create unique index generation_open on generation (tenant_id, space) where state <> 'retired';

-- Documents whose chunks changed while a generation was not written to.
create table generation_gap (
    generation_id uuid not null references generation (id) on delete cascade,
    document_id uuid not null references document (id) on delete cascade,
    tenant_id uuid not null references tenant (id) on delete cascade,
    -- Differs with every change.
    mark uuid not null,
    primary key (generation_id, document_id)
);
create index generation_gap_document on generation_gap (document_id, tenant_id);

alter table embedding_space enable row level security;
alter table embedding_space force row level security;
-- It says nothing of any tenant.
create policy embedding_space_read on embedding_space for select
    using (true);
create policy embedding_space_wall on embedding_space
    using (current_setting('frontdesk.operator', true) = 'on');

alter table generation enable row level security;
alter table generation force row level security;
create policy generation_wall on generation
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table generation_gap enable row level security;
alter table generation_gap force row level security;
create policy generation_gap_wall on generation_gap
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');
