-- Answers are kept in idempotency_answer, which goes with what they are about; this has been empty since.
alter table idempotency drop column body;
