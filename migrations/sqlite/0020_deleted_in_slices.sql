-- What is deleted is hidden at once; its rows go in slices, and this one last.
alter table chatbot add column deleted_at text;
alter table source add column deleted_at text;
