-- The webhooks that are switched off, by when that was, for whoever is to be reminded.
create index webhooks_disabled on webhooks (disabled_at) where disabled_at is not null;
