-- Accounts elsewhere that a tenant let us into, and what is known of the files there.

create table connection (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    provider text not null,
    -- Whom it opens: an e-mail address there.
    account text not null,
    -- What opens the account, sealed.
    sealed text not null,
    -- connected, or withdrawn: the account no longer lets us in.
    state text not null,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
create unique index connection_provider on connection (tenant_id, provider);

-- A consent that somebody was sent for, and that has not come back yet.
create table connection_attempt (
    -- Of the state that comes back with it.
    state_hash text primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    provider text not null,
    -- Who asked: the same has to bring it back.
    actor_kind text not null,
    actor_id text not null,
    session_id uuid,
    -- Of the secret that only the browser has which was sent there.
    browser_hash text not null,
    -- What proves that the code was asked for by us, sealed.
    sealed text not null,
    expires_at timestamptz not null
);
create index connection_attempt_tenant on connection_attempt (tenant_id);
create index connection_attempt_expires on connection_attempt (expires_at);

-- Files and folders of a Drive as they were seen last: a folder's change says nothing of what is in it.
create table drive_node (
    source_id uuid not null references source (id) on delete cascade,
    file_id text not null,
    tenant_id uuid not null references tenant (id) on delete cascade,
    node jsonb not null,
    -- The version that could not be read, and why: it is not asked for again.
    refused_version text,
    refused_code text,
    refused_message text,
    primary key (source_id, file_id)
);
create index drive_node_tenant on drive_node (tenant_id, source_id);

alter table connection enable row level security;
alter table connection force row level security;
create policy connection_wall on connection
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table connection_attempt enable row level security;
alter table connection_attempt force row level security;
create policy connection_attempt_wall on connection_attempt
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table drive_node enable row level security;
alter table drive_node force row level security;
create policy drive_node_wall on drive_node
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');
