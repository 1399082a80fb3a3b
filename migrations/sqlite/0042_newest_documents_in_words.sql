-- The newest documents whose words are in the index tell which language nearly all are in; those on their way tell nothing yet.
create index document_newest_in_words on document (tenant_id, chatbot_id, id) where words_language is not null;
