-- Map Runs and their child executions. The children of a run are a range of ids (see the migration).

-- name: begin_map_run
-- $1 bucket smallint, $2 id uuid, $3 execution_id uuid, $4 command_id int, $5 machine, $6 label,
-- $7 max_concurrency int, $8 tolerated_failure_count int, $9 tolerated_failure_percentage, $10 started_at
insert into map_runs (
    bucket, id, execution_id, command_id, machine, label, max_concurrency, tolerated_failure_count,
    tolerated_failure_percentage, started_at
)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict do nothing

-- name: map_run_status
-- The id is a range, and ordered by, so that a plan for an empty table goes by the primary key.
-- $1 bucket smallint, $2 id uuid
select status
from map_runs
where bucket = $1
and id >= $2
and id <= $2
order by id
limit 1

-- name: redrive_map_run
-- Have a run go on, unless it does already: the same redrive may be asked for again after a crash.
-- $1 bucket smallint, $2 id uuid, $3 redrive_count int
update map_runs as r
set
    status = 'RUNNING',
    stopped_at = null,
    redrive_count = $3,
    redriven_at = clock_timestamp()
from (
    select ctid as place
    from map_runs
    where bucket = $1
    and id = $2
    limit 1
) as s
where r.ctid = s.place
and r.redrive_count < $3

-- name: map_run_redriven_at
-- The id is a range for the same reason as that of `map_run_status`.
-- $1 bucket smallint, $2 id uuid
select redriven_at
from map_runs
where bucket = $1
and id >= $2
and id <= $2
order by id
limit 1

-- name: forget_children
-- Delete children that did not succeed, which will be started again: Express ones, that kept nothing.
-- Arrays: $1 bucket, $2 id
delete from executions as e
using (
    select x.place
    from unnest($1::smallint[], $2::uuid[]) as k (bucket, id)
    cross join lateral (
        select ctid as place
        from executions as c
        where c.bucket = k.bucket
        and c.id = k.id
        and c.status in ('FAILED', 'TIMED_OUT', 'ABORTED')
        limit 1
    ) as x
) as s
where e.ctid = s.place

-- name: end_map_run
-- Only by the worker that owns its execution: one that was taken for dead may not have seen what the
-- next one did with the run. The rows are found without status and owner: with them, a plan for an empty
-- table would go by other indexes.
-- $1 bucket smallint, $2 id uuid, $3 status, $4 items bigint, $5 owner uuid
update map_runs as r
set
    status = $3,
    items = coalesce($4, r.items),
    stopped_at = clock_timestamp()
from (
    select
        m.ctid as place,
        e.owner
    from map_runs as m
    cross join lateral (
        select x.owner
        from executions as x
        where x.bucket = m.bucket
        and x.id = m.execution_id
        limit 1
    ) as e
    where m.bucket = $1
    and m.id = $2
    limit 1
) as s
where r.ctid = s.place
and r.status = 'RUNNING'
and s.owner = $5
returning r.id

-- name: abort_map_run
-- It has stopped only when its children have (`map_run_stopped`). One that was redriven meanwhile goes on.
-- $1 bucket smallint, $2 id uuid, $3 redrive_count int
update map_runs as r
set status = 'ABORTED'
from (
    select ctid as place
    from map_runs
    where bucket = $1
    and id = $2
    limit 1
) as s
where r.ctid = s.place
and r.status = 'RUNNING'
and r.redrive_count = $3
returning r.id

-- name: map_run_stopped
-- Note that the children of a run that is ABORTED have been stopped.
-- $1 bucket smallint, $2 id uuid
update map_runs as r
set stopped_at = clock_timestamp()
from (
    select ctid as place
    from map_runs
    where bucket = $1
    and id = $2
    limit 1
) as s
where r.ctid = s.place
and r.status = 'ABORTED'
and r.stopped_at is null

-- name: map_run_children
-- Children of a run in order, from one id to another.
-- $1 bucket smallint, $2 first id uuid, $3 last id uuid, $4 limit int
select
    id,
    name,
    status,
    started_at,
    stopped_at,
    input,
    output,
    error,
    cause,
    coalesce(redrive_count, 0) as redrive_count
from executions
where bucket = $1
and id >= $2
and id <= $3
order by id
limit $4

-- name: hold_map_run
-- Keep a run from being redriven until the transaction is over; no row if it was, more often than said.
-- $1 bucket smallint, $2 id uuid, $3 redrive_count int
select r.id
from map_runs as r
where r.bucket = $1
and r.id = $2
and r.redrive_count <= $3
for share

-- name: running_children
-- Children of a run that have not ended, in order.
-- $1 bucket smallint, $2 first id uuid, $3 last id uuid, $4 limit int
select id
from executions
where bucket = $1
and id >= $2
and id <= $3
and status = 'RUNNING'
order by id
limit $4

-- name: ended_children
-- Those of some executions that have ended. The status is compared outside the subquery: inside, a plan
-- for an empty table might go by another index.
-- Arrays: $1 bucket, $2 id
select
    e.bucket,
    e.id,
    e.status
from unnest($1::smallint[], $2::uuid[]) as k (bucket, id)
cross join lateral (
    select
        x.bucket,
        x.id,
        x.status
    from executions as x
    where x.bucket = k.bucket
    and x.id = k.id
    limit 1
) as e
where e.status <> 'RUNNING'

-- name: map_runs_of
-- Runs under way of one execution, for the worker that owns it: to another they may be new.
-- $1 bucket smallint, $2 execution_id uuid, $3 owner uuid
select
    r.id,
    r.command_id,
    r.redrive_count
from map_runs as r
cross join lateral (
    select x.owner
    from executions as x
    where x.bucket = r.bucket
    and x.id = r.execution_id
    limit 1
) as e
where r.bucket = $1
and r.execution_id = $2
and r.stopped_at is null
and r.status = 'RUNNING'
and e.owner = $3

-- name: forsaken_map_runs
-- Runs under way whose execution is over, and runs whose children have not all been stopped: a worker died
-- before it came to that, or had no database.
-- The execution is looked up in a lateral subquery: as `not exists` beside `or`, a plan for a small table
-- would read all of it.
-- $1 limit int
select
    r.bucket,
    r.id,
    r.redrive_count
from map_runs as r
left join lateral (
    select x.status
    from executions as x
    where x.bucket = r.bucket
    and x.id = r.execution_id
    limit 1
) as e on true
where r.stopped_at is null
and (r.status = 'ABORTED' or e.status is distinct from 'RUNNING')
limit $1

-- name: delete_map_runs
-- Delete runs that ended longer ago than the retention. The id tells when one began, so none that began
-- later is looked at.
-- $1 retention in days int, $2 limit int
with closed as materialized (
    select x.place
    from generate_series(0, 255) as b (bucket)
    cross join lateral (
        select ctid as place
        from map_runs
        where bucket = b.bucket::smallint
        and id < history_day_start((statement_timestamp() at time zone 'UTC')::date + 1 - $1::integer)
        and stopped_at < statement_timestamp() - make_interval(days => $1::integer)
        limit $2::integer
        for update skip locked
    ) as x
    limit $2::integer
)
delete from map_runs as r
using closed
where r.ctid = closed.place
returning r.id
