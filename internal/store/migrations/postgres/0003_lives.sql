-- The life of the server: one row, made by the first transaction that finds none. The
-- table is not logged, so that a crash empties it and whoever comes next sees that there
-- was one, see shared.go.
create unlogged table lives (
  one  boolean          not null primary key default true check (one),
  life double precision not null
);
