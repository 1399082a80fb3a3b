-- Questions by which an owner measures a chatbot, and what came of them.

create table eval_set (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    chatbot_id uuid not null references chatbot (id) on delete cascade,
    name text not null,
    -- A list: each with its id, its text and what is expected.
    questions jsonb not null,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
create index eval_set_chatbot on eval_set (chatbot_id, tenant_id, id);

create table eval_run (
    id uuid primary key,
    tenant_id uuid not null references tenant (id) on delete cascade,
    set_id uuid not null references eval_set (id) on delete cascade,
    -- queued, running, done or failed.
    state text not null,
    -- Whether the chatbot answers too, which spends its budget.
    with_answers boolean not null,
    -- The embedding model; none: words alone.
    embedding_model text,
    -- As they were when the run was begun.
    questions jsonb not null,
    question_count bigint not null,
    -- What the questions sum up to, once it is done.
    summary jsonb,
    error text,
    created_at timestamptz not null,
    finished_at timestamptz
);
create index eval_run_set on eval_run (set_id, tenant_id, id);

create table eval_result (
    run_id uuid not null references eval_run (id) on delete cascade,
    position bigint not null,
    tenant_id uuid not null references tenant (id) on delete cascade,
    result jsonb not null,
    primary key (run_id, position)
);

alter table eval_set enable row level security;
alter table eval_set force row level security;
create policy eval_set_wall on eval_set
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table eval_run enable row level security;
alter table eval_run force row level security;
create policy eval_run_wall on eval_run
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table eval_result enable row level security;
alter table eval_result force row level security;
create policy eval_result_wall on eval_result
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');
