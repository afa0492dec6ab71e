-- Map Runs: what is kept of a Distributed Map beside its child executions.

create table map_runs (
    bucket smallint not null,
    id uuid not null,
    execution_id uuid not null,
    command_id integer not null,
    machine text not null,
    label text not null,
    max_concurrency integer not null,
    tolerated_failure_count integer,
    tolerated_failure_percentage double precision,
    started_at timestamptz not null,
    status text not null default 'RUNNING'
        check (status in ('RUNNING', 'SUCCEEDED', 'FAILED', 'ABORTED')),
    items bigint,
    stopped_at timestamptz
);

-- Made after the table for the same reason as that of executions: a plan for an empty table.
alter table map_runs add primary key (bucket, id);

comment on table map_runs is
    'One row for each run of a Distributed Map. Its children are rows of executions in the same '
    'bucket: their ids are the run''s with the number of the child in its last bits, so they are a '
    'range of that table''s primary key, in the order of the items, and need no column or index more';
comment on column map_runs.command_id is
    'Which command of the execution asked for it. The id is derived from the two, so that a repeated '
    'start finds the run';
comment on column map_runs.items is
    'How many items it was for, known once all of them are read';

comment on column map_runs.stopped_at is
    'When it ended; of an ABORTED one, when its children were stopped. Until then the sweep finds it, so '
    'that a crash between the two leaves no child behind';

create index map_runs_open on map_runs (bucket, execution_id) where stopped_at is null;
comment on index map_runs_open is
    'The runs of an execution that goes on from its row, and those whose execution is over: what it no '
    'longer waits for is stopped. Only runs under way, or being stopped, are in it';
