-- The schema of release 0.1. One text for SQLite and PostgreSQL: instants are
-- bigint microseconds since 1970 in UTC, ids are lower-case UUID text, lists and
-- objects are JSON text, and the only words that differ ({{serial}}, {{blob}})
-- are filled in by the dialect. Every key leads with the tenant; the few indexes
-- that do not are the ones the engine walks across tenants.

create table tenants (
  tenant_id           text    not null primary key,
  name                text    not null,
  product             text    not null default 'psa',
  suspended           boolean not null default false,
  ticket_prefix       text    not null default 'TKT-',
  next_ticket_number  bigint  not null default 1000,
  rate_enabled        boolean,
  rate_max_tokens     integer,
  rate_refill_per_min integer,
  webhooks_version    text    not null default '',
  created_at          bigint  not null
);

create table users (
  tenant_id   text    not null,
  user_id     text    not null,
  first_name  text    not null,
  last_name   text    not null,
  email       text    not null,
  user_type   text    not null,
  is_inactive boolean not null default false,
  permissions text    not null,
  created_at  bigint  not null,
  primary key (tenant_id, user_id)
);

create table api_keys (
  tenant_id           text    not null,
  api_key_id          text    not null,
  user_id             text    not null,
  name                text    not null,
  prefix              text    not null,
  key_hash            text    not null,
  active              boolean not null default true,
  permissions         text,
  expires_at          bigint,
  last_used_at        bigint,
  usage_count         bigint  not null default 0,
  usage_limit         bigint,
  rate_enabled        boolean,
  rate_max_tokens     integer,
  rate_refill_per_min integer,
  created_at          bigint  not null,
  primary key (tenant_id, api_key_id)
);
create unique index api_keys_hash on api_keys (key_hash);

create table boards (
  tenant_id     text    not null,
  board_id      text    not null,
  board_name    text    not null,
  description   text,
  display_order integer not null default 0,
  is_default    boolean not null default false,
  is_inactive   boolean not null default false,
  close_rules   text    not null default '[]',
  created_at    bigint  not null,
  primary key (tenant_id, board_id)
);

create table statuses (
  tenant_id    text    not null,
  status_id    text    not null,
  board_id     text    not null,
  name         text    not null,
  is_closed    boolean not null default false,
  is_default   boolean not null default false,
  order_number integer not null default 0,
  color        text,
  icon         text,
  created_at   bigint  not null,
  primary key (tenant_id, status_id)
);
create index statuses_board on statuses (tenant_id, board_id, order_number);

create table priorities (
  tenant_id     text    not null,
  priority_id   text    not null,
  priority_name text    not null,
  order_number  integer not null default 0,
  color         text,
  created_at    bigint  not null,
  primary key (tenant_id, priority_id)
);

create table clients (
  tenant_id     text    not null,
  client_id     text    not null,
  client_name   text    not null,
  email         text,
  phone_no      text,
  url           text,
  billing_cycle text    not null,
  is_inactive   boolean not null default false,
  created_at    bigint  not null,
  updated_at    bigint  not null,
  primary key (tenant_id, client_id)
);
create index clients_name on clients (tenant_id, client_name);

create table contacts (
  tenant_id       text    not null,
  contact_name_id text    not null,
  full_name       text    not null,
  email           text    not null,
  phone_number    text,
  client_id       text,
  is_inactive     boolean not null default false,
  created_at      bigint  not null,
  updated_at      bigint  not null,
  primary key (tenant_id, contact_name_id)
);
create unique index contacts_email on contacts (tenant_id, email);
create index contacts_client on contacts (tenant_id, client_id);

create table locations (
  tenant_id     text   not null,
  location_id   text   not null,
  client_id     text   not null,
  location_name text   not null,
  created_at    bigint not null,
  primary key (tenant_id, location_id)
);
create index locations_client on locations (tenant_id, client_id);

create table teams (
  tenant_id  text   not null,
  team_id    text   not null,
  team_name  text   not null,
  manager_id text,
  created_at bigint not null,
  primary key (tenant_id, team_id)
);

create table categories (
  tenant_id       text    not null,
  category_id     text    not null,
  category_name   text    not null,
  board_id        text    not null,
  parent_category text,
  display_order   integer not null default 0,
  created_at      bigint  not null,
  primary key (tenant_id, category_id)
);
create index categories_board on categories (tenant_id, board_id);

create table tickets (
  tenant_id        text    not null,
  ticket_id        text    not null,
  ticket_number    text    not null,
  title            text    not null,
  url              text,
  client_id        text    not null,
  contact_name_id  text,
  location_id      text,
  status_id        text    not null,
  board_id         text    not null,
  category_id      text,
  subcategory_id   text,
  priority_id      text    not null,
  entered_by       text    not null,
  updated_by       text,
  assigned_to      text,
  assigned_team_id text,
  closed_by        text,
  entered_at       bigint  not null,
  updated_at       bigint  not null,
  closed_at        bigint,
  due_date         bigint,
  is_closed        boolean not null,
  attributes       text,
  tags             text    not null default '[]', -- the texts of ticket_tags in order, so that a ticket is one row
  source           text    not null,
  ticket_origin    text    not null,
  response_state   text,
  last_occurred_at bigint  not null,
  last_seq         bigint  not null default 0, -- its newest event, which leads to the older ones
  primary key (tenant_id, ticket_id)
);
create unique index tickets_number on tickets (tenant_id, ticket_number);
create index tickets_updated on tickets (tenant_id, updated_at);
create index tickets_entered on tickets (tenant_id, entered_at);

-- The newest events of tickets that were deleted: their feed outlives them.
create table ticket_ends (
  tenant_id text   not null,
  ticket_id text   not null,
  last_seq  bigint not null,
  primary key (tenant_id, ticket_id)
);
create index ticket_ends_seq on ticket_ends (last_seq);

create table ticket_tags (
  tenant_id        text   not null,
  ticket_id        text   not null,
  tag_text         text   not null,
  tag_id           text   not null,
  background_color text,
  text_color       text,
  created_by       text,
  created_at       bigint not null,
  primary key (tenant_id, ticket_id, tag_text)
);
create index ticket_tags_text on ticket_tags (tenant_id, tag_text);

create table ticket_agents (
  tenant_id  text   not null,
  ticket_id  text   not null,
  user_id    text   not null,
  role       text   not null,
  created_at bigint not null,
  primary key (tenant_id, ticket_id, user_id)
);

create table comments (
  tenant_id         text    not null,
  ticket_id         text    not null,
  comment_id        text    not null,
  user_id           text,
  contact_id        text,
  note              text    not null,
  is_internal       boolean not null,
  is_resolution     boolean not null,
  is_system         boolean not null default false,
  author_type       text    not null,
  metadata          text,
  thread_id         text    not null,
  parent_comment_id text,
  created_at        bigint  not null,
  updated_at        bigint,
  deleted_at        bigint,
  primary key (tenant_id, comment_id)
);
create index comments_ticket on comments (tenant_id, ticket_id, created_at, comment_id);

create table comment_reactions (
  tenant_id  text   not null,
  comment_id text   not null,
  user_id    text   not null,
  emoji      text   not null,
  created_at bigint not null,
  primary key (tenant_id, comment_id, user_id, emoji)
);

-- The event feed. seq orders it and, with it, the time: retention walks it from
-- the front. body is the full envelope as it was frozen at the commit of the
-- change. prev_seq is the event before it of the same ticket, 0 for the first:
-- a chain costs nothing to keep, where an index by ticket is one more page to
-- write for every event.
create table events (
  seq         {{serial}},
  prev_seq    bigint not null,
  tenant_id   text   not null,
  event_id    text   not null,
  event_type  text   not null,
  ticket_id   text   not null,
  occurred_at bigint not null,
  created_at  bigint not null,
  body        {{blob}} not null
);
create unique index events_id on events (tenant_id, event_id);
create index events_feed on events (tenant_id, seq);

create table webhooks (
  tenant_id           text    not null,
  webhook_id          text    not null,
  created_by          text    not null,
  name                text    not null,
  description         text,
  url                 text    not null,
  method              text    not null,
  event_types         text    not null,
  custom_headers      text,
  event_filter        text,
  payload_fields      text,
  verify_ssl          boolean not null,
  is_active           boolean not null,
  is_test_mode        boolean not null,
  retry_config        text,
  rate_limit          text,
  metadata            text,
  tags                text    not null,
  secret              text    not null,
  previous_secret     text,
  previous_expires_at bigint,
  disabled_at         bigint,
  disabled_seq        bigint,
  disabled_reason     text    not null default '',
  deleted_at          bigint,
  created_at          bigint  not null,
  updated_at          bigint  not null,
  primary key (tenant_id, webhook_id)
);

create index webhooks_deleted on webhooks (deleted_at) where deleted_at is not null;

-- What changes with every attempt, apart from what a person configures.
create table webhook_health (
  tenant_id             text    not null,
  webhook_id            text    not null,
  total_deliveries      bigint  not null default 0,
  successful_deliveries bigint  not null default 0,
  failed_deliveries     bigint  not null default 0,
  last_delivery_at      bigint,
  last_success_at       bigint,
  last_failure_at       bigint,
  failing_since         bigint,
  warnings_sent         integer not null default 0,
  auto_disabled_at      bigint,
  wait_reason           text    not null default '',
  wait_until            bigint,
  primary key (tenant_id, webhook_id)
);
create index webhook_health_failing on webhook_health (failing_since) where failing_since is not null;

-- One row per attempt (contract P1); what goes out at once gets its row with its
-- result, see handovers. The pending ones are the queue: lease_until, lease_owner
-- and generation belong to the node that is sending it; generation is the fence
-- against a node that lost its lease. body is set where the request differs from
-- the event's own envelope. id is the order in which rows were made. custom_headers are the names of the custom headers that were
-- sent: the others follow from the row, and the values are nobody's business.
create table deliveries (
  id               {{serial}},
  tenant_id        text    not null,
  delivery_id      text    not null,
  webhook_id       text    not null,
  event_id         text    not null,
  event_type       text    not null,
  ticket_id        text    not null,
  attempt          integer not null,
  step             integer not null,
  status           text    not null,
  wait_reason      text    not null default '',
  is_test          boolean not null default false,
  is_manual        boolean not null default false,
  due_at           bigint  not null,
  attempted_at     bigint,
  completed_at     bigint,
  next_retry_at    bigint,
  created_at       bigint  not null,
  lease_owner      text,
  lease_until      bigint,
  generation       bigint  not null default 0,
  body             {{blob}},
  custom_headers   text,
  status_code      integer,
  response_headers text,
  response_body    text,
  duration_ms      bigint,
  error_type       text    not null default '',
  error_message    text    not null default ''
);
create unique index deliveries_id on deliveries (tenant_id, delivery_id);
create index deliveries_queue on deliveries (tenant_id, webhook_id, due_at, delivery_id) where status = 'pending';
create index deliveries_due on deliveries (due_at) where status = 'pending' and due_at > created_at; -- what becomes due by time alone
create index deliveries_leased on deliveries (lease_until) where lease_until is not null;
create index deliveries_log on deliveries (tenant_id, webhook_id, (coalesce(attempted_at, due_at)), delivery_id);
create index deliveries_dropped on deliveries (tenant_id, webhook_id, completed_at) where wait_reason = 'webhook_disabled';
create index deliveries_event on deliveries (tenant_id, event_id, webhook_id);

-- What the dispatcher got straight from a commit: it has no row in deliveries
-- before its attempt is recorded. One row holds all that one commit handed over,
-- and goes when the last of it has been recorded or was put into the queue.
create table handovers (
  handover_id {{serial}},
  list        {{blob}} not null
);

create table mail_outbox (
  mail_id     text    not null primary key,
  tenant_id   text    not null,
  dedupe_key  text    not null,
  recipient   text    not null,
  subject     text    not null,
  text_body   text    not null,
  html_body   text    not null,
  attempts    integer not null default 0,
  due_at      bigint  not null,
  sent_at     bigint,
  failed_at   bigint,
  last_error  text    not null default '',
  lease_owner text,
  lease_until bigint,
  generation  bigint  not null default 0,
  created_at  bigint  not null
);
create unique index mail_outbox_dedupe on mail_outbox (tenant_id, dedupe_key);
create index mail_outbox_age on mail_outbox (created_at);
create index mail_outbox_due on mail_outbox (due_at) where sent_at is null and failed_at is null;

create table idempotency_keys (
  tenant_id   text    not null,
  api_key_id  text    not null,
  key         text    not null,
  route       text    not null,
  fingerprint text    not null,
  status      integer not null,
  body        {{blob}} not null,
  created_at  bigint  not null,
  primary key (tenant_id, api_key_id, route, key)
);
create index idempotency_keys_age on idempotency_keys (created_at);
