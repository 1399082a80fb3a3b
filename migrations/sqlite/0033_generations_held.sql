-- What tells a model's vectors from those of another one of the same name; null: it was not known when it was first used.
alter table embedding_space add column fingerprint text;

-- When a generation was given up; null with those from before this column.
alter table generation add column retired_at text;
-- What it left in its index is being removed, until then at the latest: nothing is put in there before that is over.
alter table generation add column reclaiming_until text;
-- Its index was found without anything of it when nobody could put anything in any more.
alter table generation add column reclaimed_at text;
-- How far its points were held against the rows, and when that was last done.
alter table generation add column verified_to blob;
alter table generation add column verified_at text;
create index generation_unreclaimed on generation (tenant_id, space) where state = 'retired' and reclaimed_at is null;

-- How a generation that is being compared and the live one answered one question; gone when the comparison is made.
create table generation_answer (
    generation_id blob not null references generation (id) on delete cascade,
    -- Hash of the chatbot, the question and what is expected.
    question text not null,
    tenant_id blob not null references tenant (id) on delete cascade,
    -- Share of the live one's ten best passages that are among the new one's; null: it could not be asked any more.
    overlap real,
    -- nDCG@10; null where the right documents are not known.
    live_ndcg real,
    new_ndcg real,
    primary key (generation_id, question)
);
create index generation_answer_tenant on generation_answer (tenant_id);
