-- Tenants, who may act for them, and what they did.

create table tenant (
    id uuid primary key,
    name text not null,
    state text not null,
    monthly_token_limit bigint,
    monthly_cost_limit_micro_usd bigint,
    created_at timestamptz not null,
    updated_at timestamptz not null
);

create table account (
    id uuid primary key,
    email text not null unique,
    password_hash text not null,
    created_at timestamptz not null,
    updated_at timestamptz not null
);

create table member (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    account_id uuid not null references account (id) on delete cascade,
    role text not null,
    created_at timestamptz not null,
    unique (tenant_id, account_id)
);
create index member_account on member (account_id);

create table invite (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    email text not null,
    role text not null,
    token_hash text not null unique,
    created_by text not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    accepted_at timestamptz
);
create index invite_tenant on invite (tenant_id, created_at);

-- One login. Its refresh tokens form a chain: a token that is used a second time ends the whole session.
create table login_session (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    member_id uuid not null references member (id) on delete cascade,
    account_id uuid not null references account (id) on delete cascade,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    revoked_at timestamptz
);
create index login_session_account on login_session (account_id);

create table refresh_token (
    token_hash text primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    session_id uuid not null references login_session (id) on delete cascade,
    created_at timestamptz not null,
    used_at timestamptz
);
create index refresh_token_session on refresh_token (session_id);

create table chatbot (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    name text not null,
    prompt text not null,
    model text,
    temperature double precision,
    no_answer_text text not null,
    max_passages bigint not null,
    min_similarity double precision not null,
    allowed_origins jsonb not null,
    monthly_token_limit bigint,
    monthly_cost_limit_micro_usd bigint,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
create index chatbot_tenant on chatbot (tenant_id, id);

-- The sites of chatbot.allowed_origins once more, for preflight requests: those name a site, but no chatbot.
create table chatbot_origin (
    origin text not null,
    chatbot_id uuid not null references chatbot (id) on delete cascade,
    tenant_id uuid not null references tenant (id) on delete cascade,
    primary key (origin, chatbot_id)
);
create index chatbot_origin_chatbot on chatbot_origin (tenant_id, chatbot_id);

create table api_key (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    name text not null,
    hint text not null,
    secret_hash text not null unique,
    scopes jsonb not null,
    chatbot_id uuid references chatbot (id) on delete cascade,
    created_by text not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz
);
create index api_key_tenant on api_key (tenant_id, id);

create table audit_event (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    actor_kind text not null,
    actor_id text not null,
    action text not null,
    object_kind text not null,
    object_id text not null,
    before jsonb,
    after jsonb,
    address text,
    request_id text,
    created_at timestamptz not null
);
create index audit_event_tenant on audit_event (tenant_id, id);
create index audit_event_object on audit_event (tenant_id, object_id);

create table idempotency (
    tenant_id uuid not null references tenant (id) on delete cascade,
    key text not null,
    actor text not null,
    request_hash text not null,
    state text not null,
    status bigint,
    content_type text,
    body text,
    created_at timestamptz not null,
    primary key (tenant_id, actor, key)
);
create index idempotency_created on idempotency (created_at);

-- Background work. `fair_position` orders the jobs of one priority so that tenants take turns; job_clock has one line
-- per priority, and its `virtual_time` is the position up to which jobs were handed out.
create table job (
    id uuid primary key,
    tenant_id uuid references tenant (id) on delete cascade,
    kind text not null,
    payload jsonb not null,
    state text not null,
    priority bigint not null,
    fair_position bigint not null,
    unique_key text,
    attempt bigint not null,
    max_attempts bigint not null,
    run_at timestamptz not null,
    lease_until timestamptz,
    lease_token uuid,
    last_error text,
    created_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz
);
create index job_queue on job (priority, fair_position, id) where state = 'queued';
create index job_lease on job (lease_until) where state = 'running';
create index job_tenant on job (tenant_id, id);
create index job_tenant_queue on job (tenant_id, priority, fair_position) where state = 'queued';
create index job_finished on job (finished_at);
create unique index job_unique on job (unique_key) where state = 'queued';

create table job_clock (
    priority bigint primary key,
    virtual_time bigint not null
);

create table schedule (
    name text primary key,
    cron text not null,
    next_run_at timestamptz not null,
    last_run_at timestamptz
);

-- What a chatbot knows.

create table source (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    chatbot_id uuid not null references chatbot (id) on delete cascade,
    kind text not null,
    name text not null,
    created_at timestamptz not null
);
create index source_chatbot on source (tenant_id, chatbot_id);

create table document (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    chatbot_id uuid not null references chatbot (id) on delete cascade,
    source_id uuid not null references source (id) on delete cascade,
    external_id text not null,
    title text not null,
    file_name text not null,
    format text not null,
    size_bytes bigint not null,
    content_hash text not null,
    file_key text not null,
    state text not null,
    error_code text,
    error_message text,
    chunk_count bigint not null,
    token_count bigint not null,
    page_count bigint,
    embedding_model text,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    indexed_at timestamptz,
    unique (source_id, external_id)
);
create index document_chatbot on document (tenant_id, chatbot_id, id);
create index document_content on document (tenant_id, source_id, content_hash);
create index document_model on document (embedding_model);

create table document_text (
    document_id uuid primary key references document (id) on delete cascade,
    tenant_id uuid not null references tenant (id) on delete cascade,
    content_hash text not null,
    text text not null
);

create table chunk (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    document_id uuid not null references document (id) on delete cascade,
    source_id uuid not null references source (id) on delete cascade,
    position bigint not null,
    text text not null,
    heading text,
    page bigint,
    start_char bigint not null,
    end_char bigint not null,
    token_count bigint not null,
    prompt_token_count bigint not null,
    content_hash text not null
);
create index chunk_document on chunk (tenant_id, document_id, position);

-- Conversations and what they cost.

create table conversation (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    chatbot_id uuid not null references chatbot (id) on delete cascade,
    channel text not null,
    message_count bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
create index conversation_tenant on conversation (tenant_id, id);
create index conversation_chatbot on conversation (tenant_id, chatbot_id, id);

create table message (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    conversation_id uuid not null references conversation (id) on delete cascade,
    role text not null,
    content text not null,
    state text not null,
    answer_source text,
    model text,
    error_code text,
    citations jsonb not null,
    content_tokens bigint not null,
    prompt_tokens bigint not null,
    completion_tokens bigint not null,
    embedding_tokens bigint not null,
    cost_micro_usd bigint not null,
    created_at timestamptz not null
);
create index message_conversation on message (tenant_id, conversation_id, id);

create table usage_event (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    chatbot_id uuid,
    conversation_id uuid,
    message_id uuid,
    channel text not null,
    kind text not null,
    model text not null,
    prompt_tokens bigint not null,
    completion_tokens bigint not null,
    cached_tokens bigint not null,
    embedding_tokens bigint not null,
    cost_micro_usd bigint not null,
    price_book_version text not null,
    reported boolean not null,
    latency_ms bigint not null,
    created_at timestamptz not null
);
create index usage_event_tenant on usage_event (tenant_id, id);
create index usage_event_time on usage_event (tenant_id, created_at);

-- One line per tenant or chatbot and month: what is spent, and what running turns hold.
create table budget (
    tenant_id uuid not null references tenant (id) on delete cascade,
    holder_id uuid not null,
    period text not null,
    used_tokens bigint not null,
    used_micro_usd bigint not null,
    reserved_tokens bigint not null,
    reserved_micro_usd bigint not null,
    primary key (tenant_id, holder_id, period)
);

create table reservation (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    chatbot_id uuid not null,
    period text not null,
    tokens bigint not null,
    micro_usd bigint not null,
    expires_at timestamptz not null
);
create index reservation_expires on reservation (expires_at);
