-- What looking for an answer's passages had to do without: a list of codes with sentences; null: nothing.

alter table message add column degraded jsonb;
