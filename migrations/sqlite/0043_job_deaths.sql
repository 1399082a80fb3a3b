-- How many of a job's attempts ended with their worker's death: they count as attempts, but make the pause before the next no longer.
alter table job add column deaths integer not null default 0;
