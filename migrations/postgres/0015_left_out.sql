-- Pictures and recordings in a document that nobody read: what, why, how many.
alter table document add column left_out jsonb;
