-- Reports of cutovers that were published for people to read in the console. body is
-- the report as JSON, and the last column: lists do not read it.
create table cutover_reports (
  tenant_id    text   not null,
  report_id    text   not null,
  published_by text   not null,
  published_at bigint not null,
  verdict      text   not null,
  headline     text   not null,
  server       text   not null,
  webhook_id   text   not null,
  window_from  bigint,
  window_to    bigint not null,
  body         {{blob}} not null,
  primary key (tenant_id, report_id)
);
