-- What the operator allows a tenant in a month; its own limits can only lower it. Null: no cap.
alter table tenant add column monthly_token_cap integer;
alter table tenant add column monthly_cost_cap_micro_usd integer;

-- Wrong passwords that were tried with an invitation: it is spent after a few.
alter table invite add column wrong_passwords integer not null default 0;

-- Which making of the search index the documents were put into; another one has to be filled anew. At most one row.
create table index_generation (
    id integer primary key,
    generation text not null
);
-- What every index is called that was made before they had names.
insert into index_generation (id, generation) values (1, '0');
