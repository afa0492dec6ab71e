-- The first schema: executions and their history, definitions, workers, accounts.
--
-- Rules that hold for every table here:
-- * `bucket` (0-255, fixed for ever) begins every primary and unique key of a row that belongs to
--   somebody, so that the tables can be distributed by it. No foreign key leaves a bucket, and none
--   is kept inside one either: its check costs an index probe and a row lock for each insert, and
--   the engine writes both sides in one transaction anyway.
-- * JSON documents are text, or bytea where the engine compresses them; never jsonb, which rewrites
--   numbers, drops key order and duplicate keys, refuses \u0000 and takes twice the CPU.
-- * Columns that never change stand before those that do: an update logs only what differs
--   between the old and the new row, from the first byte that does.

create table definitions (
    sha256 bytea primary key check (length(sha256) = 32),
    text text not null,
    created_at timestamptz not null default now()
);

comment on table definitions is
    'Texts of state machine definitions by their SHA-256: an execution ends on the text it began with';

create table machines (
    name text primary key,
    current bytea not null references definitions (sha256),
    file text,
    updated_at timestamptz not null default now()
);

comment on table machines is
    'What new executions of a machine run on. A reference table: the same in every bucket';
comment on column machines.file is
    'The workflow file that publishes this machine; null: made through the API';

create table machine_publications (
    name text not null references machines (name),
    sha256 bytea not null references definitions (sha256),
    published_at timestamptz not null default now(),
    primary key (name, sha256)
);

comment on table machine_publications is
    'Every text that a machine''s file ever published, so that a replica with an older build, starting '
    'in the middle of a rolling deploy, knows its file as old and leaves the newer one in place';

create table executions (
    bucket smallint not null,
    id uuid not null,
    started_at timestamptz not null,
    definition bytea not null,
    machine text not null,
    name text not null,
    input text not null,
    epoch integer not null default 1,
    claims integer not null default 0,
    quarantined integer not null default 0,
    signalled boolean not null default false,
    status text not null default 'RUNNING'
        check (status in ('RUNNING', 'SUCCEEDED', 'FAILED', 'TIMED_OUT', 'ABORTED')),
    owner uuid,
    due_at timestamptz,
    checkpoint bytea,
    output text,
    error text,
    cause text,
    stopped_at timestamptz,
    constraint executions_name unique (bucket, name, machine)
)
with (fillfactor = 70);

-- Made after the unique key: while the table is empty the two cost a plan the same, the planner then
-- takes the younger, and a plan made with `bucket` alone would stay and read 1/256 of the table.
alter table executions add primary key (bucket, id);

comment on table executions is
    'One row for each execution, which is also its place in the queue. RUNNING at rest: due_at and no '
    'owner. RUNNING in a worker: owner and no due_at (the worker keeps its timers). Ended: neither. '
    'The free 30 % of a page keep its updates there, which logs less';
comment on column executions.epoch is
    'The fence: every claim, signal that claims, rescue, release and checkpoint raises it by one, and '
    'who holds an older one writes nothing';
comment on column executions.claims is
    'Claims since the last checkpoint; from the second the execution runs alone, in quarantine';
comment on column executions.definition is
    'SHA-256 of the definition it runs on. Not a foreign key: each start would lock that one row';
comment on constraint executions_name on executions is
    'A machine has one execution of a name. The name comes first because it is a UUIDv7 for nearly '
    'all of them: new entries then share a page, as under the primary key';

create index executions_due on executions (due_at) where due_at is not null;
comment on index executions_due is
    'The timers: claims take from its front. Only executions at rest are in it';

create index executions_owner on executions (owner) where owner is not null;
comment on index executions_owner is
    'What a worker holds: heartbeats, rescues and releases read it. Only executions in flight are in it';

create index executions_stray on executions (bucket, id)
where status = 'RUNNING' and owner is null and due_at is null;
comment on index executions_stray is
    'Rows that break the invariant, which the sweep makes due. Always empty, so it costs a comparison';

create table workers (
    id uuid primary key,
    started_at timestamptz not null default now(),
    heartbeat_at timestamptz not null,
    lease_seconds double precision not null
)
with (fillfactor = 50);

comment on table workers is
    'The lease of each worker process, by this database''s clock: one row renewed for all that it holds';
comment on column workers.lease_seconds is
    'What the worker promised to renew within. Kept here so that a replica set to a shorter lease does '
    'not take the work of one that is set to a longer';

create table history (
    bucket smallint not null,
    execution_id uuid not null,
    first_event_id integer not null,
    events bytea not null,
    primary key (bucket, execution_id, first_event_id)
)
partition by range (execution_id);

comment on table history is
    'History events, one compressed row for each checkpoint. Partitioned by the day its execution '
    'started, which a UUIDv7 carries in its first 48 bits: a range of ids is a day, and a day whose '
    'executions are all forgotten is dropped whole';

create table history_default partition of history default;
comment on table history_default is
    'Events of days that have no partition (yet): from a machine whose clock is days off';

-- The engine has compressed the events already: no second attempt, which costs CPU and gains nothing.
alter table history alter column events set storage external;
alter table history_default alter column events set storage external;

create function history_day_start(day date) returns uuid
language sql
immutable
strict
parallel safe
return (
    lpad(to_hex((extract(epoch from day::timestamp) * 1000)::bigint), 12, '0') || repeat('0', 20)
)::uuid;

comment on function history_day_start(date) is
    'The smallest id of a day (UTC): 48 bits of milliseconds since 1970, then zeros (RFC 9562, UUIDv7)';

create function add_history_day(day date) returns boolean
language plpgsql
as $$
declare
    partition_name text := 'history_' || to_char(day, 'YYYYMMDD');
begin
    if to_regclass(partition_name) is not null then
        return false;
    end if;
    -- Another replica that is at it now does it for all.
    if not pg_try_advisory_xact_lock(4839201178254) then
        return false;
    end if;
    -- Made apart and attached: `create table ... partition of` would lock all of history against
    -- writers. Attaching locks only the default partition, which has rows of clocks gone wrong.
    execute format(
        'create table %I (like history including defaults including storage including constraints)',
        partition_name
    );
    execute format(
        'alter table history attach partition %I for values from (%L) to (%L)',
        partition_name, history_day_start(day), history_day_start(day + 1)
    );
    return true;
exception
    when check_violation then
        -- The default partition has rows of that day already: it keeps the day.
        return false;
    when duplicate_table or lock_not_available then
        -- Added by another replica just now, or somebody reads all of history: not now.
        return false;
end
$$;

comment on function add_history_day(date) is
    'Add the partition of a day unless it is there; says whether it was added';

create function drop_history_days(before date) returns integer
language plpgsql
as $$
declare
    partition_name text;
    day date;
    dropped integer := 0;
begin
    -- Another replica that is at it now does it for all.
    if not pg_try_advisory_xact_lock(4839201178254) then
        return 0;
    end if;
    for partition_name in
        select c.relname
        from pg_inherits i
        join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'history'::regclass
        and c.relname ~ '^history_[0-9]{8}$'
        order by c.relname
    loop
        day := to_date(right(partition_name, 8), 'YYYYMMDD');
        exit when day >= before;
        if not exists (
            select
            from generate_series(0, 255) as b (bucket)
            cross join lateral (
                select
                from executions e
                where e.bucket = b.bucket::smallint
                and e.id >= history_day_start(day)
                and e.id < history_day_start(day + 1)
                limit 1
            ) as e
        ) then
            begin
                execute format('drop table %I', partition_name);
                dropped := dropped + 1;
            exception
                when lock_not_available then
                    -- Somebody reads all of history: the next time, then.
                    return dropped;
            end;
        end if;
    end loop;
    return dropped;
end
$$;

comment on function drop_history_days(date) is
    'Drop the days before this one of which no execution is left (the sweep deletes an execution when '
    'its retention is over, so a day goes when that of its last one is); says how many';

create table accounts (
    bucket smallint not null,
    id uuid not null,
    created_at timestamptz not null default now(),
    identity_version smallint not null,
    identity_key text,
    address text,
    name text,
    locale text,
    data text,
    links smallint not null default 1,
    status text not null default 'pending'
        check (status in ('pending', 'verified', 'superseded', 'expired')),
    decided_at timestamptz,
    primary key (bucket, id)
)
with (fillfactor = 80);

comment on table accounts is
    'One row for each signup. It asks for an address, it does not have it: many may be pending for one. '
    'An expired row is a tombstone: id, status and time, nothing of the person';
comment on column accounts.links is
    'How many verification links were sent; the last three of them work while the signup is pending';
comment on column accounts.decided_at is
    'When it stopped being pending';

create index accounts_identity on accounts (bucket, identity_key) where identity_key is not null;
comment on index accounts_identity is
    'All signups of one address: the one that is verified supersedes the others; the operator''s search';

create index accounts_tombstones on accounts (decided_at) where status = 'expired';
comment on index accounts_tombstones is
    'What is left of expired signups, oldest first, for their deletion';

create table verified_addresses (
    bucket smallint not null,
    identity_key text not null,
    account_id uuid not null,
    verified_at timestamptz not null default now(),
    notified_at timestamptz,
    primary key (bucket, identity_key)
)
with (fillfactor = 90);

comment on table verified_addresses is
    'Who owns an address: won by whoever inserts the row first, across batches and replicas';
comment on column verified_addresses.notified_at is
    'When the owner was last told that somebody signed up with the address again: at most once a day';

select add_history_day((now() at time zone 'UTC')::date + n)
from generate_series(0, 3) as n;
