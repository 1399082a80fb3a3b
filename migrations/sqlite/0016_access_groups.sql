-- What owners say of documents, and whom they let read them: lists of names. Null: what the source says.
alter table document add column tags text;
alter table document add column access_groups text;
-- What the index was told of the document, as a number; null: it has to be told.
alter table document add column facets_told integer;

-- What holds for a source's documents that say nothing of their own. Null: no tags, open to everyone.
alter table source add column tags text;
alter table source add column access_groups text;

-- With which groups a conversation began: it goes on with these only. Null: with none.
alter table conversation add column access_groups text;
