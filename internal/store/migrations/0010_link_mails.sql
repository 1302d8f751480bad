-- A mail with a link that signs in: after expires_at it is of no use and is not sent,
-- and its texts are sealed, since whoever reads them can use the link.
alter table mail_outbox add column expires_at bigint;

-- Who asked for such a link lately, so that nobody floods anybody. There are only
-- hashes, and a row lives for a quarter of an hour.
create table link_requests (
  request_id   text   not null primary key,
  address_hash text   not null,
  sender_hash  text   not null,
  requested_at bigint not null
);
create index link_requests_address on link_requests (address_hash, requested_at);
create index link_requests_sender on link_requests (sender_hash, requested_at);
create index link_requests_age on link_requests (requested_at);
create index users_email on users (lower(email));
