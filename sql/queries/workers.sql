-- Workers: the leases, and what becomes of executions whose worker is gone.

-- name: heartbeat
-- Renew a worker's lease; one row with the clock, and one more for each signalled execution it holds.
-- Whether there is anything to compare with or to rescue is told, too: mostly an idle service asks no more.
-- $1 id uuid, $2 lease in seconds, $3 limit of signalled keys int
with beat as (
    insert into workers (id, heartbeat_at, lease_seconds)
    values ($1, clock_timestamp(), $2)
    on conflict (id) do update
    set
        heartbeat_at = clock_timestamp(),
        lease_seconds = excluded.lease_seconds
    returning heartbeat_at
)
select
    beat.heartbeat_at as now,
    e.bucket,
    e.id,
    exists (select from executions as x where x.owner = $1) as holds,
    exists (select from executions as x where x.owner < $1)
    or exists (select from executions as x where x.owner > $1) as others_hold
from beat
left join lateral (
    select
        bucket,
        id
    from executions
    where owner = $1
    and signalled
    limit $3
) as e on true

-- name: rescue
-- Claim executions of workers whose lease has run out or that have none. The owners are found by
-- stepping from one to the next in the index, a probe each, instead of reading all that is in flight.
-- $1 owner uuid, $2 lease in seconds, $3 limit int
with recursive owners (id) as (
    (
        select owner
        from executions
        where owner is not null
        order by owner
        limit 1
    )
    union all
    select (
        select e.owner
        from executions as e
        where e.owner > o.id
        order by e.owner
        limit 1
    )
    from owners as o
    where o.id is not null
),
lost as materialized (
    select e.ctid as place
    from executions as e
    where e.owner = any(
        array(
            select o.id
            from owners as o
            where o.id <> $1
            and not exists (
                select
                from workers as w
                where w.id = o.id
                and w.heartbeat_at >= clock_timestamp()
                - make_interval(secs => greatest(w.lease_seconds, $2::double precision))
            )
        )
    )
    limit $3
    for update skip locked
)
update executions as e
set
    owner = $1,
    epoch = e.epoch + 1,
    claims = e.claims + 1
from lost
where e.ctid = lost.place
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

-- name: release
-- Give up what a worker holds, due at once for others. A clean stop is no death: it is not counted.
-- $1 owner uuid
update executions
set
    owner = null,
    epoch = epoch + 1,
    claims = greatest(claims - 1, 0),
    due_at = statement_timestamp()
where owner = $1
returning id

-- name: delete_worker
-- $1 id uuid
delete from workers
where id = $1

-- name: delete_lost_workers
-- Delete the leases of workers that died long ago and whose executions have all been rescued.
delete from workers as w
where w.heartbeat_at < clock_timestamp() - interval '1 hour'
and not exists (
    select
    from executions as e
    where e.owner = w.id
)
