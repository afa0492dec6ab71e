-- What a connection and a transaction begin and end with.
--
-- The planner settings keep every join an index nested loop. A plan made while a table is empty is
-- otherwise a hash join over a full scan, is cached with the prepared statement, and stays until the
-- next ANALYZE: measured at twenty times the CPU. They suit every statement in these files, all of
-- which read a few rows by key; what must not be reordered is written as a lateral subquery with
-- `limit` or `for update`, which the planner cannot flatten.
--
-- `lock_timeout` lets a batch that meets a locked row be split instead of waiting.
-- `idle_in_transaction_session_timeout` frees the locks of a process that was stopped inside one.

-- name: settle
-- Settings of a connection that is ours alone.
set lock_timeout = '200ms';
set idle_in_transaction_session_timeout = '10s';
set plan_cache_mode = force_generic_plan;
set jit = off;
set enable_seqscan = off;
set enable_bitmapscan = off;
set enable_hashjoin = off;
set enable_mergejoin = off;
set enable_memoize = off;
set enable_material = off;

-- name: begin
begin

-- name: begin_pooled
-- The same settings for one transaction: behind a transaction pooler the connection is everybody's.
begin;
set local lock_timeout = '200ms';
set local idle_in_transaction_session_timeout = '10s';
set local plan_cache_mode = force_generic_plan;
set local jit = off;
set local enable_seqscan = off;
set local enable_bitmapscan = off;
set local enable_hashjoin = off;
set local enable_mergejoin = off;
set local enable_memoize = off;
set local enable_material = off;

-- name: set_lock_patience
-- For the transaction only. $1 text, such as 25ms
select set_config('lock_timeout', $1, true)

-- name: commit
commit

-- name: rollback
rollback

-- name: ping
-- Whether the database answers and takes writes, and its clock.
select
    clock_timestamp() as now,
    pg_is_in_recovery() as is_read_only

-- name: notify
-- $1 channel text, $2 payload text
select pg_notify($1, $2)
