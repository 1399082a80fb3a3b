-- By the rules of which language the index has the words of a document's chunks; empty: of none, null: not all by the same.
alter table document add column words_language text;
update document
   set words_language = coalesce(language, detected_language, '')
 where indexed_at is not null;
