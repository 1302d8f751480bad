-- What a webhook brings to the TLS of its connections: client certificate, key
-- and authorities, as one sealed JSON object; null without any.
alter table webhooks add column tls text;
