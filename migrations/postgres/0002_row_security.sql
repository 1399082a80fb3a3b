-- The second wall between tenants: a connection sees the rows of the tenant that it was opened for, or, opened for
-- the operator, all rows. A connection without either sees none.

alter table tenant enable row level security;
alter table tenant force row level security;
create policy tenant_wall on tenant
    using (id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table account enable row level security;
alter table account force row level security;
create policy account_wall on account
    using (current_setting('frontdesk.operator', true) = 'on');

alter table member enable row level security;
alter table member force row level security;
create policy member_wall on member
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table invite enable row level security;
alter table invite force row level security;
create policy invite_wall on invite
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table login_session enable row level security;
alter table login_session force row level security;
create policy login_session_wall on login_session
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table refresh_token enable row level security;
alter table refresh_token force row level security;
create policy refresh_token_wall on refresh_token
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table chatbot enable row level security;
alter table chatbot force row level security;
create policy chatbot_wall on chatbot
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table chatbot_origin enable row level security;
alter table chatbot_origin force row level security;
create policy chatbot_origin_wall on chatbot_origin
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table api_key enable row level security;
alter table api_key force row level security;
create policy api_key_wall on api_key
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table audit_event enable row level security;
alter table audit_event force row level security;
create policy audit_event_wall on audit_event
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table idempotency enable row level security;
alter table idempotency force row level security;
create policy idempotency_wall on idempotency
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table job enable row level security;
alter table job force row level security;
create policy job_wall on job
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table schedule enable row level security;
alter table schedule force row level security;
create policy schedule_wall on schedule
    using (current_setting('frontdesk.operator', true) = 'on');

alter table source enable row level security;
alter table source force row level security;
create policy source_wall on source
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table document enable row level security;
alter table document force row level security;
create policy document_wall on document
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table document_text enable row level security;
alter table document_text force row level security;
create policy document_text_wall on document_text
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table chunk enable row level security;
alter table chunk force row level security;
create policy chunk_wall on chunk
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table conversation enable row level security;
alter table conversation force row level security;
create policy conversation_wall on conversation
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table message enable row level security;
alter table message force row level security;
create policy message_wall on message
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table usage_event enable row level security;
alter table usage_event force row level security;
create policy usage_event_wall on usage_event
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table budget enable row level security;
alter table budget force row level security;
create policy budget_wall on budget
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');

alter table reservation enable row level security;
alter table reservation force row level security;
create policy reservation_wall on reservation
    using (tenant_id = nullif(current_setting('frontdesk.tenant_id', true), '')::uuid
        or current_setting('frontdesk.operator', true) = 'on');
