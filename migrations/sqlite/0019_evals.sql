-- Questions by which an owner measures a chatbot, and what came of them.

create table eval_set (
    id blob primary key,
    tenant_id blob not null references tenant (id) on delete cascade,
    chatbot_id blob not null references chatbot (id) on delete cascade,
    name text not null,
    -- A list: each with its id, its text and what is expected.
    questions text not null,
    created_at text not null,
    updated_at text not null
);
create index eval_set_chatbot on eval_set (chatbot_id, tenant_id, id);

create table eval_run (
    id blob primary key,
    tenant_id blob not null references tenant (id) on delete cascade,
    set_id blob not null references eval_set (id) on delete cascade,
    -- queued, running, done or failed.
    state text not null,
    -- Whether the chatbot answers too, which spends its budget.
    with_answers boolean not null,
    -- The embedding model; none: words alone.
    embedding_model text,
    -- As they were when the run was begun.
    questions text not null,
    question_count integer not null,
    -- What the questions sum up to, once it is done.
    summary text,
    error text,
    created_at text not null,
    finished_at text
);
create index eval_run_set on eval_run (set_id, tenant_id, id);

create table eval_result (
    run_id blob not null references eval_run (id) on delete cascade,
    position integer not null,
    tenant_id blob not null references tenant (id) on delete cascade,
    result text not null,
    primary key (run_id, position)
);
