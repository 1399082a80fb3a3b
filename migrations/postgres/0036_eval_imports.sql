-- A test set that was deleted is hidden at once; its results go in slices, and it goes last.
alter table eval_set add column deleted_at timestamptz;

-- Of which conversations a test set, or a run of it, has questions: what was said in them goes when they go.
create table eval_import (
    set_id uuid not null references eval_set (id) on delete cascade,
    conversation_id uuid not null references conversation (id) on delete cascade,
    tenant_id uuid not null references tenant (id) on delete cascade,
    primary key (set_id, conversation_id)
);
create index eval_import_conversation on eval_import (conversation_id, tenant_id);

-- Neither of the two that are compared found anything for the question.
alter table generation_answer add column found_nothing boolean not null default false;
alter table cut_answer add column found_nothing boolean not null default false;

alter table eval_import enable row level security;
alter table eval_import force row level security;
create policy eval_import_wall on eval_import
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');
