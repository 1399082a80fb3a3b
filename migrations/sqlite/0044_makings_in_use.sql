-- Since when documents are put into this making of a model's index, and when a process last said that it has it: processes of two
-- releases, or two configurations, may have two.
alter table embedding_space add column making_since text;
alter table embedding_space add column making_used_at text;

-- How often what a generation held was lost: how far it is filled is noted by whoever knows of all losses only.
alter table generation add column losses integer not null default 0;
