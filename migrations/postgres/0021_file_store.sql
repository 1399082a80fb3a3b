-- The id of the data folder that documents' files are in. At most one row.
create table file_store (
    id bigint primary key,
    store_id uuid not null
);

alter table file_store enable row level security;
alter table file_store force row level security;
create policy file_store_wall on file_store
    using (current_setting('frontdesk.operator', true) = 'on');
