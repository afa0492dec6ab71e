-- Executions: starting, claiming, locking, signalling and saving them.
--
-- Two patterns recur. A row is looked up in a lateral subquery, which is an index probe for each key
-- whatever the planner believes, and then updated by its `ctid`, which is exact because the row is
-- locked: by an earlier statement of the transaction, or in the same statement by one that skips
-- locked rows (there a row that changed between snapshot and lock is passed over until the next time).
-- `save` may meet a row that nothing has locked, and says how it knows it again.
--
-- The columns of a claim are written out each time: with `*`, a migration that adds a column would
-- change what prepared statements return, and each would fail once in replicas that are still running.

-- name: insert_executions
-- Insert executions as they stand after their first step, in the order given, which is sorted by key, and
-- append the history of that step. `is true` keeps the question which of them were inserted a look into a
-- hash: as a join it would compare each with each, there being no other kind of join (see session.sql).
-- Arrays: $1 bucket, $2 id, $3 started_at, $4 definition, $5 machine, $6 name, $7 input, $8 epoch,
-- $9 status, $10 due_at, $11 owner, $12 checkpoint, $13 output, $14 error, $15 cause, $16 stopped_at,
-- $17 first_event_id, $18 events
with begun as (
    insert into executions (
        bucket, id, started_at, definition, machine, name, input, epoch,
        status, due_at, owner, checkpoint, output, error, cause, stopped_at
    )
    select *
    from unnest(
        $1::smallint[], $2::uuid[], $3::timestamptz[], $4::bytea[], $5::text[], $6::text[],
        $7::text[], $8::integer[], $9::text[], $10::timestamptz[], $11::uuid[], $12::bytea[],
        $13::text[], $14::text[], $15::text[], $16::timestamptz[]
    )
    on conflict do nothing
    returning
        bucket,
        id
),
appended as (
    insert into history (bucket, execution_id, first_event_id, events)
    select r.*
    from unnest($1::smallint[], $2::uuid[], $17::integer[], $18::bytea[])
    as r (bucket, id, first_event_id, events)
    where r.events is not null
    and (r.id in (select id from begun)) is true
)
select
    bucket,
    id
from begun

-- name: inserted_before
-- Of executions that could not be inserted, those that are there by this very start: the commit whose
-- answer was lost. A statement of its own, so as to see what the insert had to wait for. Machine and
-- name are compared outside the subquery: inside, a plan for an empty table would go by them.
-- The message: see `owned`.
-- Arrays: $1 bucket, $2 id, $3 machine, $4 name
with durable as materialized (
    select pg_logical_emit_message(true, 'countersign', '')
)
select
    e.bucket,
    e.id
from durable
cross join unnest($1::smallint[], $2::uuid[], $3::text[], $4::text[]) as r (bucket, id, machine, name)
cross join lateral (
    select
        x.bucket,
        x.id,
        x.machine,
        x.name
    from executions as x
    where x.bucket = r.bucket
    and x.id = r.id
    limit 1
) as e
where e.machine = r.machine
and e.name = r.name

-- name: lock
-- Lock the rows whose epoch still stands, in the order given, which is sorted by key.
-- Arrays: $1 bucket, $2 id, $3 epoch
select
    e.bucket,
    e.id,
    e.signalled
from unnest($1::smallint[], $2::uuid[], $3::integer[]) as f (bucket, id, epoch)
cross join lateral (
    select
        x.bucket,
        x.id,
        x.signalled
    from executions as x
    where x.bucket = f.bucket
    and x.id = f.id
    and x.epoch = f.epoch
    and x.status = 'RUNNING'
    for update
) as e

-- name: standing
-- Lock running executions, in the order given, whoever holds them, and return their rows.
-- Arrays: $1 bucket, $2 id
select
    e.bucket,
    e.id,
    e.epoch,
    e.machine,
    e.definition,
    e.name,
    e.input,
    e.started_at,
    e.checkpoint,
    e.signalled,
    e.claims,
    e.quarantined,
    coalesce(e.redrive_count, 0) as redrive_count,
    e.redrive_times[1] as redriven_at,
    clock_timestamp() as claimed_at,
    e.owner
from unnest($1::smallint[], $2::uuid[]) as k (bucket, id)
cross join lateral (
    select *
    from executions as x
    where x.bucket = k.bucket
    and x.id = k.id
    and x.status = 'RUNNING'
    for update
) as e

-- name: signal
-- Mark executions that `standing` has locked as signalled and claim those at rest; `was_owned` tells them
-- apart.
-- Arrays: $1 bucket, $2 id; $3 owner uuid of what is claimed
update executions as e
set
    signalled = true,
    epoch = e.epoch + (e.owner is null)::integer,
    claims = e.claims + (e.owner is null)::integer,
    owner = coalesce(e.owner, $3::uuid),
    due_at = null
from (
    select
        x.place,
        x.was_owned
    from unnest($1::smallint[], $2::uuid[]) as k (bucket, id)
    cross join lateral (
        select
            ctid as place,
            owner is not null as was_owned
        from executions
        where bucket = k.bucket
        and id = k.id
        and status = 'RUNNING'
        limit 1
    ) as x
) as s
where e.ctid = s.place
returning
    e.bucket,
    e.id,
    e.epoch,
    e.machine,
    e.definition,
    e.name,
    e.input,
    e.started_at,
    e.checkpoint,
    e.signalled,
    e.claims,
    e.quarantined,
    coalesce(e.redrive_count, 0) as redrive_count,
    e.redrive_times[1] as redriven_at,
    clock_timestamp() as claimed_at,
    e.owner,
    s.was_owned

-- name: save
-- Write checkpoints, in the order given, which is sorted by key, and append their history. What is no
-- longer as the step found it is left out: another worker has it, or it was signalled meanwhile. So a step
-- without effects needs no lock before. That is asked of the row once more: of one that it had to wait for,
-- servers older than 15.15, 16.11, 17.7 and 18.1 do not compare the ctid again.
-- Arrays: $1 ordinal, $2 bucket, $3 id, $4 epoch, $5 status, $6 due_at, $7 owner, $8 checkpoint, $9 output,
-- $10 error, $11 cause, $12 stopped_at, $13 signalled, $14 first_event_id, $15 events
with written as (
    update executions as e
    set
        epoch = s.epoch,
        claims = 0,
        quarantined = 0,
        signalled = false,
        status = s.status,
        owner = s.owner,
        due_at = s.due_at,
        checkpoint = s.checkpoint,
        output = s.output,
        error = s.error,
        cause = s.cause,
        stopped_at = s.stopped_at
    from (
        select
            r.*,
            x.place
        from unnest(
            $1::integer[], $2::smallint[], $3::uuid[], $4::integer[], $5::text[], $6::timestamptz[],
            $7::uuid[], $8::bytea[], $9::text[], $10::text[], $11::text[], $12::timestamptz[],
            $13::boolean[], $14::integer[], $15::bytea[]
        ) as r (
            ordinal, bucket, id, epoch, status, due_at, owner, checkpoint, output, error, cause,
            stopped_at, signalled, first_event_id, events
        )
        cross join lateral (
            select ctid as place
            from executions
            where bucket = r.bucket
            and id = r.id
            and epoch = r.epoch - 1
            and signalled = r.signalled
            limit 1
        ) as x
    ) as s
    where e.ctid = s.place
    and e.epoch = s.epoch - 1
    and e.signalled = s.signalled
    returning
        s.ordinal,
        e.bucket,
        e.id,
        s.first_event_id,
        s.events
),
appended as (
    insert into history (bucket, execution_id, first_event_id, events)
    select
        bucket,
        id,
        first_event_id,
        events
    from written
    where events is not null
)
select coalesce(array_agg(ordinal), '{}') as written
from written

-- name: claim_due
-- Claim executions whose timer is due, earliest first. Skips rows another process is taking. With each
-- comes the earliest timer of those that are not due yet: to ask for it would be one more round trip.
-- $1 limit int, $2 owner uuid, $3 since timestamptz
with due as materialized (
    select ctid as place
    from executions
    where due_at >= $3
    and due_at <= statement_timestamp()
    order by due_at
    limit $1
    for update skip locked
)
update executions as e
set
    owner = $2::uuid,
    epoch = e.epoch + 1,
    claims = e.claims + 1,
    due_at = null
from due
where e.ctid = due.place
returning
    e.bucket,
    e.id,
    e.epoch,
    e.machine,
    e.definition,
    e.name,
    e.input,
    e.started_at,
    e.checkpoint,
    e.signalled,
    e.claims,
    e.quarantined,
    coalesce(e.redrive_count, 0) as redrive_count,
    e.redrive_times[1] as redriven_at,
    clock_timestamp() as claimed_at,
    (
        select min(due_at)
        from executions
        where due_at > statement_timestamp()
    ) as next_due

-- name: next_due
-- The earliest timer, and the clock: always a row.
-- $1 since timestamptz
select
    (
        select min(due_at)
        from executions
        where due_at >= $1
    ) as due_at,
    statement_timestamp() as now

-- name: claim_owned
-- Read rows that the owner still holds. The owner is compared outside the subquery: inside, a plan for
-- an empty table would go by it.
-- Arrays: $1 bucket, $2 id; $3 owner uuid
select
    e.bucket,
    e.id,
    e.epoch,
    e.machine,
    e.definition,
    e.name,
    e.input,
    e.started_at,
    e.checkpoint,
    e.signalled,
    e.claims,
    e.quarantined,
    coalesce(e.redrive_count, 0) as redrive_count,
    e.redrive_times[1] as redriven_at,
    clock_timestamp() as claimed_at
from unnest($1::smallint[], $2::uuid[]) as k (bucket, id)
cross join lateral (
    select *
    from executions
    where bucket = k.bucket
    and id = k.id
    limit 1
) as e
where e.owner = $3::uuid

-- name: owned
-- What a worker holds: by this it believes what was in doubt. A primary that died while a commit waited
-- for its synchronous standby shows the row when it is back, though the standby may never have had it.
-- The empty message makes of this look a commit that waits for the standby itself, which then has had
-- all that was there to see.
-- $1 owner uuid
with durable as materialized (
    select pg_logical_emit_message(true, 'countersign', '')
)
select
    e.bucket,
    e.id,
    e.epoch
from durable
cross join executions as e
where e.owner = $1

-- name: seize.lock
-- Lock running executions, in the order given, before `seize` takes them.
-- Arrays: $1 bucket, $2 id; $3 owner uuid
select $3::uuid as owner
from unnest($1::smallint[], $2::uuid[]) as k (bucket, id)
cross join lateral (
    select
    from executions as x
    where x.bucket = k.bucket
    and x.id = k.id
    and x.status = 'RUNNING'
    for update
) as e

-- name: seize
-- Claim running executions whoever holds them. It says nothing against them: no claim is counted.
-- Arrays: $1 bucket, $2 id; $3 owner uuid
update executions as e
set
    owner = $3::uuid,
    epoch = e.epoch + 1,
    due_at = null
from (
    select x.place
    from unnest($1::smallint[], $2::uuid[]) as k (bucket, id)
    cross join lateral (
        select ctid as place
        from executions
        where bucket = k.bucket
        and id = k.id
        and status = 'RUNNING'
        limit 1
    ) as x
) as s
where e.ctid = s.place
returning
    e.bucket,
    e.id,
    e.epoch,
    e.machine,
    e.definition,
    e.name,
    e.input,
    e.started_at,
    e.checkpoint,
    e.signalled,
    e.claims,
    e.quarantined,
    coalesce(e.redrive_count, 0) as redrive_count,
    e.redrive_times[1] as redriven_at,
    clock_timestamp() as claimed_at

-- name: lock_ended
-- Lock executions that have ended, in the order given, before `redrive` looks at them.
-- Arrays: $1 bucket, $2 id
select e.id
from unnest($1::smallint[], $2::uuid[]) as k (bucket, id)
cross join lateral (
    select x.id
    from executions as x
    where x.bucket = k.bucket
    and x.id = k.id
    and x.status <> 'RUNNING'
    for update
) as e

-- name: redrive
-- Have executions go on that did not succeed, and claim them. Left out are those that kept nothing to go on
-- from, that ended or began too long ago, and that this token has redriven lately. What a signal has left
-- on one that could not be read stays for it to find.
-- Arrays: $1 bucket, $2 id; $3 owner uuid, $4 token text or null, $5 days since the end int, $6 days since
-- the start int, $7 seconds that a token is good for, $8 redrives remembered int
update executions as e
set
    status = 'RUNNING',
    owner = $3::uuid,
    epoch = e.epoch + 1,
    claims = 0,
    quarantined = 0,
    error = null,
    cause = null,
    stopped_at = null,
    redrive_count = coalesce(e.redrive_count, 0) + 1,
    redrive_times = (array_prepend(clock_timestamp(), e.redrive_times))[1:$8::integer],
    redrive_tokens = (array_prepend($4::text, e.redrive_tokens))[1:$8::integer]
from (
    select x.place
    from unnest($1::smallint[], $2::uuid[]) as k (bucket, id)
    cross join lateral (
        select ctid as place
        from executions as c
        where c.bucket = k.bucket
        and c.id = k.id
        and c.status in ('FAILED', 'TIMED_OUT', 'ABORTED')
        and c.checkpoint is not null
        and c.stopped_at > statement_timestamp() - make_interval(days => $5::integer)
        and c.started_at > statement_timestamp() - make_interval(days => $6::integer)
        and not exists (
            select
            from unnest(c.redrive_tokens, c.redrive_times) as r (token, at)
            where r.token = $4::text
            and r.at > statement_timestamp() - make_interval(secs => $7::double precision)
        )
        limit 1
    ) as x
) as s
where e.ctid = s.place
returning
    e.bucket,
    e.id,
    e.epoch,
    e.machine,
    e.definition,
    e.name,
    e.input,
    e.started_at,
    e.checkpoint,
    e.signalled,
    e.claims,
    e.quarantined,
    e.redrive_count,
    e.redrive_times[1] as redriven_at,
    clock_timestamp() as claimed_at

-- name: redriven_by
-- When a token redrove an execution, if it did lately.
-- $1 bucket smallint, $2 id uuid, $3 token text, $4 seconds that a token is good for
select r.at as redriven_at
from executions as e
cross join lateral unnest(e.redrive_tokens, e.redrive_times) as r (token, at)
where e.bucket = $1
and e.id = $2
and r.token = $3
and r.at > statement_timestamp() - make_interval(secs => $4::double precision)
limit 1

-- name: let_go
-- Put one claim back, due after a delay. Its claim count stands.
-- $1 bucket smallint, $2 id uuid, $3 epoch int, $4 delay in seconds
update executions
set
    owner = null,
    epoch = epoch + 1,
    due_at = statement_timestamp() + make_interval(secs => $4::double precision)
where bucket = $1
and id = $2
and epoch = $3
and status = 'RUNNING'
returning epoch

-- name: quarantine
-- $1 bucket smallint, $2 id uuid, $3 epoch int, $4 beginnings more, or -1
update executions
set quarantined = quarantined + $4::integer
where bucket = $1
and id = $2
and epoch = $3
and status = 'RUNNING'
returning quarantined

-- name: bury
-- End what cannot be read. No history tells of it: an event's id would have to come from the checkpoint.
-- That is kept: once its trouble is mended, the execution can be redriven.
-- $1 bucket smallint, $2 id uuid, $3 epoch int, $4 error, $5 cause
update executions
set
    status = 'FAILED',
    epoch = epoch + 1,
    owner = null,
    due_at = null,
    error = $4,
    cause = $5,
    stopped_at = clock_timestamp()
where bucket = $1
and id = $2
and epoch = $3
and status = 'RUNNING'
returning epoch

-- name: sweep
-- Make due at once what has neither due time nor owner. Nothing in the service leaves such a row; an
-- operator's statement might.
-- $1 limit int
with stray as materialized (
    select ctid as place
    from executions
    where status = 'RUNNING'
    and owner is null
    and due_at is null
    limit $1
    for update skip locked
)
update executions as e
set due_at = statement_timestamp()
from stray
where e.ctid = stray.place
returning e.id

-- name: delete_closed
-- Delete executions that closed longer ago than the retention. The id tells when one started, so none
-- that started later is looked at; no index on the closing time is kept for this. The children of a map
-- run are kept while it goes on: they are its results. All but the last nine digits of their ids are its own.
-- Ordered, so that a plan for an empty table goes by the primary key: by names it would read all of a bucket.
-- $1 retention in days int, $2 limit int
with closed as materialized (
    select x.place
    from generate_series(0, 255) as b (bucket)
    cross join lateral (
        select ctid as place
        from executions as c
        where bucket = b.bucket::smallint
        and id < history_day_start((statement_timestamp() at time zone 'UTC')::date + 1 - $1::integer)
        and status <> 'RUNNING'
        and stopped_at < statement_timestamp() - make_interval(days => $1::integer)
        and not exists (
            select
            from map_runs as r
            where r.bucket = b.bucket::smallint
            and r.stopped_at is null
            and left(r.id::text, -9) = left(c.id::text, -9)
        )
        order by id
        limit $2::integer
        for update skip locked
    ) as x
    limit $2::integer
)
delete from executions as e
using closed
where e.ctid = closed.place
returning e.id

-- name: execution
-- $1 bucket smallint, $2 id uuid
select
    bucket,
    id,
    started_at,
    definition,
    machine,
    name,
    input,
    status,
    owner,
    due_at,
    output,
    error,
    cause,
    stopped_at
from executions
where bucket = $1
and id = $2

-- name: named_execution
-- The name is a range, and ordered by, so that a plan for an empty table goes by the index of names:
-- by equality alone the primary key would do as well there, and would then stay.
-- $1 bucket smallint, $2 name text, $3 machine text
select
    bucket,
    id,
    started_at,
    definition,
    machine,
    name,
    input,
    status,
    output,
    error,
    cause,
    stopped_at,
    checkpoint is not null as is_kept,
    coalesce(redrive_count, 0) as redrive_count,
    redrive_times[1] as redriven_at
from executions
where bucket = $1
and name >= $2
and name <= $2
and machine = $3
order by name
limit 1

-- name: page_executions
-- Executions of a machine, the latest first; what may be long is left out.
-- $1 machine text, $2 before this moment timestamptz, $3 and of those at it before this id uuid,
-- $4 status text or null for any, $5 whether redriven boolean or null for any, $6 limit int
select
    bucket,
    id,
    started_at,
    definition,
    machine,
    name,
    '' as input,
    status,
    null as output,
    null as error,
    null as cause,
    stopped_at,
    checkpoint is not null as is_kept,
    coalesce(redrive_count, 0) as redrive_count,
    redrive_times[1] as redriven_at
from executions
where machine = $1
and started_at <= $2
and (started_at < $2 or id < $3)
and ($4::text is null or status = $4)
and ($5::boolean is null or (redrive_count is not null) = $5)
order by started_at desc, id desc
limit $6
