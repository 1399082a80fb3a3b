-- What the document that was deleted by hand said: the same words stay away under other addresses too.
alter table source_exclusion add column content_hash text;
create index source_exclusion_content on source_exclusion (source_id, content_hash);
