-- Every reference has an index that begins with its own columns: deleting a row looks for what refers to it, and neither
-- engine does that by an index in which another column comes first.
drop index chatbot_origin_chatbot;
create index chatbot_origin_chatbot on chatbot_origin (chatbot_id, tenant_id);
drop index source_chatbot;
create index source_chatbot on source (chatbot_id, tenant_id);
drop index document_chatbot;
create index document_chatbot on document (chatbot_id, tenant_id, id);
drop index chunk_document;
create index chunk_document on chunk (document_id, tenant_id, position);
drop index conversation_chatbot;
create index conversation_chatbot on conversation (chatbot_id, tenant_id, id);
drop index message_conversation;
create index message_conversation on message (conversation_id, tenant_id, id);
drop index sync_run_source;
create index sync_run_source on sync_run (source_id, tenant_id, id);
drop index sync_failure_run;
create index sync_failure_run on sync_failure (run_id, tenant_id, id);
drop index chunk_edit_document;
create index chunk_edit_document on chunk_edit (source_id, tenant_id, external_id);

create index chunk_source on chunk (source_id);
create index api_key_chatbot on api_key (chatbot_id);
create index login_session_member on login_session (member_id);
