-- What is kept of an answer for a repeat of its request. It goes with what it is about.
create table idempotency_answer (
    tenant_id blob not null references tenant (id) on delete cascade,
    actor text not null,
    key text not null,
    chatbot_id blob references chatbot (id) on delete cascade,
    conversation_id blob references conversation (id) on delete cascade,
    -- Null: it was streamed.
    body text,
    primary key (tenant_id, actor, key),
    foreign key (tenant_id, actor, key) references idempotency (tenant_id, actor, key) on delete cascade
);
create index idempotency_answer_chatbot on idempotency_answer (chatbot_id);
create index idempotency_answer_conversation on idempotency_answer (conversation_id);

-- Answers that were kept before hang on nothing.
update idempotency set body = null;
