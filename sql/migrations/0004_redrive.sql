-- Redriving: executions that did not succeed go on from where they stood, and so do their map runs.
--
-- An execution that ends without success keeps its checkpoint from now on; no column is needed for that.
-- The new columns are null until an execution is redriven, so they take no room in nearly all rows.

alter table executions
    add column redrive_count integer,
    add column redrive_times timestamptz[],
    add column redrive_tokens text[];

comment on column executions.checkpoint is
    'Where it stands; of one that did not succeed, where it stood, for a redrive. Null: it succeeded, was '
    'erased, or nothing more fits into its history';
comment on column executions.redrive_count is
    'How often it was redriven. A checkpoint tells of how many redrives the execution has heard: a '
    'worker that died right after it redrove one leaves to the next what it had to tell';
comment on column executions.redrive_times is
    'When it was, the latest first, the last ten of them';
comment on column executions.redrive_tokens is
    'The clientToken of each of these, so that a repeated request redrives nothing twice';

alter table map_runs
    add column redrive_count integer not null default 0,
    add column redriven_at timestamptz;

comment on column map_runs.redrive_count is
    'How often it was redriven. Whoever stops a run names the count: one that goes on is another one';
comment on column map_runs.redriven_at is
    'When it last was: children that failed before that are redriven, those that failed since are not';
