-- What tells a model's vectors from those of another one of the same name; null: it was not known when it was first used.
alter table embedding_space add column fingerprint text;

-- When a generation was given up; null with those from before this column.
alter table generation add column retired_at timestamptz;
-- What it left in its index is being removed, until then at the latest: nothing is put in there before that is over.
alter table generation add column reclaiming_until timestamptz;
-- Its index was found without anything of it when nobody could put anything in any more.
alter table generation add column reclaimed_at timestamptz;
-- How far its points were held against the rows, and when that was last done.
alter table generation add column verified_to uuid;
alter table generation add column verified_at timestamptz;
create index generation_unreclaimed on generation (tenant_id, space) where state = 'retired' and reclaimed_at is null;

-- How a generation that is being compared and the live one answered one question; gone when the comparison is made.
create table generation_answer (
    generation_id uuid not null references generation (id) on delete cascade,
    -- Hash of the chatbot, the question and what is expected.
    question text not null,
    tenant_id uuid not null references tenant (id) on delete cascade,
    -- Share of the live one's ten best passages that are among the new one's; null: it could not be asked any more.
    overlap double precision,
    -- nDCG@10; null where the right documents are not known.
    live_ndcg double precision,
    new_ndcg double precision,
    primary key (generation_id, question)
);
create index generation_answer_tenant on generation_answer (tenant_id);

alter table generation_answer enable row level security;
alter table generation_answer force row level security;
create policy generation_answer_wall on generation_answer
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');
