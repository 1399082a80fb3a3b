-- Whether the index was found to hold fewer points than the rows say, as an older copy of it does: until it is mended, answers say
-- that some are not found.
alter table generation add column is_short boolean not null default false;
