-- The language that a document's text shows, as a BCP 47 tag; it holds where nobody said another (`language`).
alter table document add column detected_language text;
