-- The number of the event that a delivery is about, 0 of a test: it leads to the
-- event's row, and says how old the event is.
alter table deliveries add column event_seq bigint not null default 0;
update deliveries set event_seq = coalesce((select e.seq from events e
  where e.tenant_id = deliveries.tenant_id and e.event_id = deliveries.event_id), 0);
