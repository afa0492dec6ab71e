-- History: reading it, and the partitions it is kept in (one for each day). It is written with the
-- checkpoints that it leads to: `insert_executions`, `save`.

-- name: read_history
-- $1 bucket smallint, $2 execution_id uuid
select events
from history
where bucket = $1
and execution_id = $2
order by first_event_id

-- name: page_history
-- Rows from the one that has an event on, in order.
-- $1 bucket smallint, $2 execution_id uuid, $3 event id int, $4 limit int
select events
from history
where bucket = $1
and execution_id = $2
and first_event_id >= (
    select coalesce(max(first_event_id), 0)
    from history
    where bucket = $1
    and execution_id = $2
    and first_event_id <= $3
)
order by first_event_id
limit $4

-- name: page_history_backwards
-- Rows from the one that has an event back to the first.
-- $1 bucket smallint, $2 execution_id uuid, $3 event id int, $4 limit int
select events
from history
where bucket = $1
and execution_id = $2
and first_event_id <= $3
order by first_event_id desc
limit $4

-- name: add_history_days
-- Add the partitions of today and the days ahead that are not there yet.
-- $1 days ahead int
select count(*) filter (
    where add_history_day((statement_timestamp() at time zone 'UTC')::date + n)
) as added
from generate_series(0, $1::integer) as n

-- name: drop_history_days
-- Drop the passed days of which no execution is left.
-- $1 retention in days int
select drop_history_days((statement_timestamp() at time zone 'UTC')::date - $1::integer) as dropped

-- name: delete_stray_history
-- Delete rows of the default partition, which no day's end clears, whose execution is gone.
-- $1 retention in days int, $2 limit int
with stray as materialized (
    select h.ctid as place
    from history_default as h
    where h.execution_id < history_day_start(
        (statement_timestamp() at time zone 'UTC')::date - $1::integer
    )
    and not exists (
        select
        from executions as e
        where e.bucket = h.bucket
        and e.id = h.execution_id
        limit 1
    )
    limit $2
    for update of h skip locked
)
delete from history_default as h
using stray
where h.ctid = stray.place
returning h.first_event_id
