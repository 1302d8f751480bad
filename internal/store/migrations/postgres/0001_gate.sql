-- What only PostgreSQL has. The one row of gate is updated by every transaction
-- that writes, see postgres.go. It is a page of its own with room for the versions
-- of that row, so that none of them touches an index.
create table gate (
  one     boolean not null primary key default true check (one),
  version bigint  not null default 0
) with (fillfactor = 10, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
insert into gate (one) values (true);

-- A queue leaves dead rows behind as fast as it moves: claims slow down with them
-- within a minute unless they are cleared away.
alter table handovers set (autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
alter table deliveries set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);
alter table webhook_health set (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.1);
alter table tickets set (fillfactor = 80);
