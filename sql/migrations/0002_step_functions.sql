-- State machines made through the Step Functions API, and the list of a machine's executions.

alter table machines
    add column type text not null default 'STANDARD' check (type in ('STANDARD', 'EXPRESS')),
    add column role_arn text,
    add column logging text,
    add column is_traced boolean not null default false,
    add column revision uuid,
    add column created_at timestamptz not null default now(),
    add column deleted_at timestamptz;

comment on column machines.role_arn is
    'What the API was told; null: made by a file. Shown, and part of the context object; nothing is '
    'assumed with it';
comment on column machines.logging is
    'The loggingConfiguration of the API as JSON; null: the default. Kept to be shown';
comment on column machines.revision is
    'A new one with each UpdateStateMachine that changes anything; null until the first';
comment on column machines.deleted_at is
    'When it was deleted: nothing new starts, its executions run on, and the name may be taken again '
    'once none runs';

-- Not by id, in which a machine's entries would be in order as well: for an empty table the planner
-- would find rows of a known id by such an index (skipping through it) and not by the primary key.
create index executions_machine on executions (machine, started_at);
comment on index executions_machine is
    'ListExecutions of a machine, the latest first; whether a deleted machine still has executions. '
    'Neither column ever changes, so updates leave it alone';
