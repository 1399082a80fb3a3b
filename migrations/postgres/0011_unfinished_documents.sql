-- A run asks again and again whether documents of its source still wait to be indexed.
create index document_unfinished on document (tenant_id, source_id) where state in ('queued', 'processing');
