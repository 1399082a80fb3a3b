-- In which languages the documents of a chatbot are is looked up for questions that do not show their own.
create index document_words_language on document (tenant_id, chatbot_id, words_language);
