-- What is kept of an answer for a repeat of its request. It goes with what it is about.
create table idempotency_answer (
    tenant_id uuid not null references tenant (id) on delete cascade,
    actor text not null,
    key text not null,
    chatbot_id uuid references chatbot (id) on delete cascade,
    conversation_id uuid references conversation (id) on delete cascade,
    -- Null: it was streamed.
    body text,
    primary key (tenant_id, actor, key),
    foreign key (tenant_id, actor, key) references idempotency (tenant_id, actor, key) on delete cascade
);
create index idempotency_answer_chatbot on idempotency_answer (chatbot_id);
create index idempotency_answer_conversation on idempotency_answer (conversation_id);

-- Answers that were kept before hang on nothing.
select set_config('frontdesk.operator', 'on', true);
update idempotency set body = null;

alter table idempotency_answer enable row level security;
alter table idempotency_answer force row level security;
create policy idempotency_answer_wall on idempotency_answer
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');
