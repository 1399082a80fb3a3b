-- How far a generation has a document that is filled in part by part: which change of it, and up to which position.
alter table generation add column place_document blob;
alter table generation add column place_mark blob;
alter table generation add column place_position integer;
