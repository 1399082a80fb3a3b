-- Sources that are read again and again: websites, folders elsewhere, and what programs push.

-- What the owner set for a source, by its kind; what is secret in it is in `sealed`.
alter table source add column settings jsonb not null default '{}';
alter table source add column sealed text;
alter table source add column state text not null default 'idle';
-- How a chatbot's documents of this source are cut; null: as everywhere.
alter table source add column chunking jsonb;
-- An interval or a cron expression with a time zone; null: on request only.
alter table source add column schedule jsonb;
alter table source add column next_run_at timestamptz;
alter table source add column updated_at timestamptz;
create index source_due on source (next_run_at);

-- One run over a source: what it found, and why it ended as it did.
create table sync_run (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    source_id uuid not null references source (id) on delete cascade,
    cause text not null,
    state text not null,
    -- Where a running one stands: reading, then indexing, then removing.
    phase text not null,
    -- Read as if nothing were known of the pages.
    is_full boolean not null,
    -- Removals held back by an earlier run go through.
    accepts_removals boolean not null,
    -- Counts the slices of work done on it; only the job of the present one goes on.
    slice bigint not null,
    -- Who works on it now; whoever lost this writes nothing more.
    holder uuid,
    -- It ends at this time, whatever is left to do; a pause moves it.
    deadline timestamptz not null,
    -- Where listing stands; null: at its beginning.
    list_cursor text,
    -- The other side told what changed only: what it did not name is still there.
    lists_changes boolean not null,
    new_count bigint not null,
    changed_count bigint not null,
    unchanged_count bigint not null,
    removed_count bigint not null,
    failed_count bigint not null,
    -- Documents that vanished but are kept, because too many did at once.
    held_count bigint not null,
    bytes bigint not null,
    embedding_calls bigint not null,
    -- Where the other side's list of changes starts for the next run.
    next_change_token text,
    -- What kept it from seeing everything, or from removing, by code, one a line.
    notes text not null,
    error_code text,
    error_message text,
    started_at timestamptz not null,
    updated_at timestamptz not null,
    ended_at timestamptz
);
create index sync_run_source on sync_run (tenant_id, source_id, id);
create unique index sync_run_open on sync_run (source_id) where state = 'running';

-- What a run could not read, and why.
create table sync_failure (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    run_id uuid not null references sync_run (id) on delete cascade,
    url text not null,
    code text not null,
    message text not null,
    created_at timestamptz not null
);
create index sync_failure_run on sync_failure (tenant_id, run_id, id);

-- What is known of each page or file of a source, and where the run stands that listed it last: the checkpoint.
create table source_item (
    source_id uuid not null references source (id) on delete cascade,
    -- The normalised address, or the file's id elsewhere.
    item_key text not null,
    tenant_id uuid not null references tenant (id) on delete cascade,
    url text not null,
    run_id uuid not null,
    state text not null,
    depth bigint not null,
    attempts bigint not null,
    -- Not before this time, after a failed attempt.
    retry_at timestamptz,
    -- Its content was had at this time, or known to be as before.
    read_at timestamptz,
    document_id uuid references document (id) on delete set null,
    etag text,
    last_modified text,
    -- What the other side's list says of the version: a sitemap's lastmod, a file's version.
    listed_version text,
    -- What it said when the item was read last.
    read_version text,
    -- What the item was when it was read last: a page, one that names another address, one that is not to be kept.
    known_as text,
    -- The item that this one names as itself.
    moved_to text,
    body_hash text,
    -- Of title and text: pages that agree in it are one document.
    text_hash text,
    -- Which version of our reader made the document.
    reader_version bigint,
    -- Addresses on the page that belong to the source, one a line.
    links text,
    updated_at timestamptz not null,
    primary key (source_id, item_key)
);
create index source_item_frontier on source_item (source_id, run_id, state, depth, item_key);
create index source_item_text on source_item (tenant_id, source_id, text_hash);
create index source_item_document on source_item (document_id, source_id, tenant_id);

-- Where a document is for a reader, and what it says of itself.
alter table document add column url text;
-- The title that came with it, and goes before what its content says.
alter table document add column given_title text;
-- What is kept of it: the original file, or for a web page what was read from it.
alter table document add column kept_as text not null default 'original';
alter table document add column language text;
alter table document add column description text;
alter table document add column published_at text;
-- The run that made this version.
alter table document add column run_id uuid;
create index document_run on document (tenant_id, run_id);

alter table sync_run enable row level security;
alter table sync_run force row level security;
create policy sync_run_wall on sync_run
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table sync_failure enable row level security;
alter table sync_failure force row level security;
create policy sync_failure_wall on sync_failure
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table source_item enable row level security;
alter table source_item force row level security;
create policy source_item_wall on source_item
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');
