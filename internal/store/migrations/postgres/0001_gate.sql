-- What only PostgreSQL has. gate_version counts the transactions that write, see
-- shared.go. It is a sequence and no column: a row that each of them updates would
-- grow into a chain of versions while anybody has an old snapshot, as a backup has.
-- webhooks counts the changes of webhooks and the new replays, so that every node
-- hears of them.
create sequence gate_version;
create table gate (
  one       boolean not null primary key default true check (one),
  webhooks  bigint  not null default 0,
  key_check text -- sealed by the first process: the others must have its key
) with (fillfactor = 10);
insert into gate (one) values (true);

-- The processes that deliver, see node.go. Instants are those of the database's
-- clock.
create table nodes (
  node_id     text   not null primary key,
  joined_at   bigint not null,
  lease_until bigint not null,
  leaving     boolean not null default false -- finishes what it has begun, and takes nothing new
) with (fillfactor = 50);

-- Buckets of the API's rate limits. What a crash of the server takes is full again.
create unlogged table rate_buckets (
  tenant_id  text   not null,
  api_key_id text   not null,
  tokens     double precision not null,
  allowed    boolean not null,
  filled_at  bigint not null,
  primary key (tenant_id, api_key_id)
) with (fillfactor = 50);

-- A queue leaves dead rows behind as fast as it moves: claims slow down with them
-- within a minute unless they are cleared away.
alter table handovers set (autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);
alter table webhook_health set (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.1);
alter table tickets set (fillfactor = 80);
