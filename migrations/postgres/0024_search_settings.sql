-- How a chatbot's passages are chosen, as far as its owner decided it.

alter table chatbot add column search_settings jsonb not null default '{}';
