-- A replay may be of events that somebody has chosen: a JSON list of their ids; null
-- for one of a time.
alter table replay_jobs add column event_ids text;
