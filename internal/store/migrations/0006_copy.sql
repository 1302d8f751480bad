-- How far a copy of another installation has come, see copy.go: what is here of
-- each table ends with the row that has last_key. state is that of the source. No
-- server starts on a copy that is not finished.
create table copies (
  source   text    not null primary key,
  state    text    not null,
  finished boolean not null default false
);
create table copied_tables (
  table_name text     not null primary key,
  last_key   {{blob}} not null
);
