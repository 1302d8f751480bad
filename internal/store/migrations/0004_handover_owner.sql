-- Whose the list is: on several nodes each has its own.
alter table handovers add column owner text not null default '';
