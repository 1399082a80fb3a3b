-- The paid calls that a reservation was made for, as ledger lines: booked when it lapses, since whoever made it died.
alter table reservation add column calls text not null default '[]';

-- Whether a line of the ledger is what was reserved, and not what the call was seen to take.
alter table usage_event add column estimated boolean not null default false;
