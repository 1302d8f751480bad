-- Who may use the console: sessions, and the links that open one. Only hashes are
-- kept, so that nobody becomes somebody else by reading the database. A session
-- that was opened with a key ends with it; '' is one that came from a link.
create table console_tokens (
  token_hash text   not null primary key,
  kind       text   not null, -- session or link
  tenant_id  text   not null,
  user_id    text   not null,
  api_key_id text   not null default '',
  created_at bigint not null,
  expires_at bigint not null
);
create index console_tokens_age on console_tokens (expires_at);

-- What the attempts of a minute came to, for the charts: the log has a row per
-- attempt, and an hour of it can be millions. minute counts from 1970; the other
-- columns count attempts, those from under_10 on by how many milliseconds they
-- took.
create table delivery_minutes (
  tenant_id   text   not null,
  minute      bigint not null,
  delivered   bigint not null,
  failed      bigint not null,
  under_10    bigint not null,
  under_25    bigint not null,
  under_50    bigint not null,
  under_100   bigint not null,
  under_250   bigint not null,
  under_500   bigint not null,
  under_1000  bigint not null,
  under_2500  bigint not null,
  under_5000  bigint not null,
  under_10000 bigint not null,
  slower      bigint not null,
  primary key (tenant_id, minute)
);
create index delivery_minutes_age on delivery_minutes (minute);
