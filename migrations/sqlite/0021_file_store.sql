-- The id of the data folder that documents' files are in. Empty here: a file of SQLite moves with its folder.
create table file_store (
    id integer primary key,
    store_id blob not null
);
