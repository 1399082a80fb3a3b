-- What stands in front of a chunk's text in what is embedded for it: titles, headings, the header of its table. Null: it was cut
-- before this was kept, and is cut anew when it has to be embedded again.
alter table chunk add column context text;
alter table staged_chunk add column context text;
