-- Events and the log by day, see partition.go: what is past its retention goes with
-- the table of its day. The tables of days are made while the service runs.
--
-- Numbers of events begin anew each day, at day * 2^36, so the day of an event is
-- in its number. events_embedded has those that an embedded database has numbered,
-- and events_rest what has no table of its day.
alter table events rename to events_whole;
create table events (like events_whole including defaults) partition by range (seq);
create table events_embedded partition of events for values from (minvalue) to (68719476736);
create table events_rest partition of events default;
insert into events select * from events_whole;
drop table events_whole;
alter table events add constraint events_pkey primary key (seq);
create index events_id on events (tenant_id, event_id);
create index events_feed on events (tenant_id, seq);

-- What is owed is in a table of its own, so that the queue is small however long
-- the log is, and nothing that is owed can go with a day. A row moves to the day on
-- which it ends.
alter table deliveries rename to deliveries_whole;
create table deliveries (like deliveries_whole including defaults including identity) partition by list (status);
create table owed_deliveries partition of deliveries for values in ('pending');
create table logged_deliveries partition of deliveries default partition by range (completed_at);
create table logged_deliveries_rest partition of logged_deliveries default;
insert into deliveries select * from deliveries_whole;
select setval(pg_get_serial_sequence('deliveries', 'id'), max(id)) from deliveries;
drop table deliveries_whole;
create index deliveries_id on deliveries (tenant_id, delivery_id);
create index deliveries_made on deliveries (id);
create index deliveries_log on deliveries (tenant_id, webhook_id, (coalesce(attempted_at, due_at)), delivery_id);
create index deliveries_event on deliveries (tenant_id, event_id, webhook_id);
create index deliveries_queue on owed_deliveries (tenant_id, webhook_id, due_at, delivery_id);
create index deliveries_due on owed_deliveries (due_at) where due_at > created_at;
create index deliveries_leased on owed_deliveries (lease_until) where lease_until is not null;
create index deliveries_dropped on logged_deliveries (tenant_id, webhook_id, completed_at) where wait_reason = 'webhook_disabled';
-- The rows that show the body of an event and outlive its day.
create index deliveries_owing_body on owed_deliveries (event_seq) where body is null;
create index deliveries_late on logged_deliveries (event_seq)
  where body is null and event_seq / 68719476736 < completed_at / 86400000000;
alter table owed_deliveries set (autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);
