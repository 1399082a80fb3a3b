-- A test set that was deleted is hidden at once; its results go in slices, and it goes last.
alter table eval_set add column deleted_at text;

-- Of which conversations a test set, or a run of it, has questions: what was said in them goes when they go.
create table eval_import (
    set_id blob not null references eval_set (id) on delete cascade,
    conversation_id blob not null references conversation (id) on delete cascade,
    tenant_id blob not null references tenant (id) on delete cascade,
    primary key (set_id, conversation_id)
);
create index eval_import_conversation on eval_import (conversation_id, tenant_id);

-- Neither of the two that are compared found anything for the question.
alter table generation_answer add column found_nothing boolean not null default false;
alter table cut_answer add column found_nothing boolean not null default false;
