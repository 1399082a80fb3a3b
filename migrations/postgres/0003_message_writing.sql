-- Answers that are being written: few, and looked for among all messages.
create index message_writing on message (created_at) where state = 'writing';
