-- Replays in the background. after_seq is how far into the feed a job has come;
-- it moves in the transaction that queues what lies before it. since_at and
-- until_at are instants; of a job with scope 'missed', since_at is when the
-- first of the outages that it makes up for began.
create table replay_jobs (
  tenant_id     text    not null,
  replay_id     text    not null,
  webhook_id    text    not null,
  scope         text    not null,
  status        text    not null,
  cancel_reason text    not null default '',
  since_at      bigint  not null,
  until_at      bigint  not null,
  until_given   boolean not null,
  after_seq     bigint  not null,
  end_seq       bigint  not null,
  queued        bigint  not null default 0,
  skipped       bigint  not null default 0,
  created_at    bigint  not null,
  finished_at   bigint,
  primary key (tenant_id, replay_id)
);
create unique index replay_jobs_running on replay_jobs (tenant_id, webhook_id) where status = 'running';
create index replay_jobs_webhook on replay_jobs (tenant_id, webhook_id, replay_id);
create index replay_jobs_age on replay_jobs (finished_at) where finished_at is not null;

-- The times in which a webhook was inactive, once they are over; one that lasts
-- is in webhooks. It has missed the events after from_seq up to to_seq.
create table disabled_periods (
  tenant_id   text   not null,
  webhook_id  text   not null,
  period_id   text   not null,
  from_seq    bigint not null,
  to_seq      bigint not null,
  disabled_at bigint not null,
  enabled_at  bigint not null,
  reason      text   not null,
  primary key (tenant_id, webhook_id, period_id)
);
create index disabled_periods_age on disabled_periods (enabled_at);
