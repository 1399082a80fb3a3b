-- Seconds of recordings that a call listened to.
alter table usage_event add column audio_seconds integer not null default 0;
