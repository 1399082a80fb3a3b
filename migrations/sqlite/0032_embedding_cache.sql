-- Embeddings that were made before, so that the same text is not embedded twice. A copy: any row may vanish at any time.
create table embedding_cache (
    tenant_id blob not null references tenant (id) on delete cascade,
    -- SHA-256 of what was embedded, in hexadecimal, as in chunk.content_hash.
    text_hash text not null,
    -- Of embedding_space: the vector is compared with nothing else.
    space text not null,
    -- 32-bit floats, the lowest byte first.
    vector blob not null,
    size_bytes integer not null,
    kept_at text not null,
    -- To the day.
    used_at text not null,
    primary key (tenant_id, text_hash, space)
);
create index embedding_cache_used on embedding_cache (used_at, size_bytes);
-- Whether a text is still somebody's.
create index chunk_content on chunk (tenant_id, content_hash);
