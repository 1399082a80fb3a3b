-- What a tenant used longest ago, and what its rows take together, are read without the vectors.
create index embedding_cache_of_tenant on embedding_cache (tenant_id, used_at, size_bytes);
drop index embedding_cache_used;
