-- What answered the questions of a run: the embedding model with what tells it from others of its name, and how each source was
-- cut; null: the run has not begun, or is of a version that did not note it.
alter table eval_run add column setup text;
