-- The schema's version.

-- name: lock_schema
-- Let one process at a time change the schema; the others wait, each until its turn.
-- The lock belongs to the transaction: one of the session would be lost behind a transaction pooler.
set local lock_timeout = '60s';
set local idle_in_transaction_session_timeout = '60s';
select pg_advisory_xact_lock(4839201178253);

-- name: make_schema_migrations
create table if not exists schema_migrations (
    version integer primary key,
    name text not null,
    sha256 text not null,
    applied_at timestamptz not null default now()
);
comment on table schema_migrations is
    'The files of sql/migrations that were applied here, and what was in them';

-- name: has_schema_migrations
select to_regclass('schema_migrations') is not null as is_there

-- name: applied_migrations
select
    version,
    sha256
from schema_migrations
order by version

-- name: keep_migration
-- $1 version int, $2 name text, $3 sha256 text
insert into schema_migrations (version, name, sha256)
values ($1, $2, $3)
