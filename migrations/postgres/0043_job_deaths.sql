-- How many of a job's attempts ended with their worker's death: they count as attempts, but make the pause before the next no longer.
alter table job add column deaths bigint not null default 0;
