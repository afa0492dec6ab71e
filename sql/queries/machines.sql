-- Definitions, and which of them a machine's new executions take.

-- name: keep_definition
-- $1 sha256 bytea, $2 text
insert into definitions (sha256, text)
values ($1, $2)
on conflict do nothing

-- name: definition
-- $1 sha256 bytea
select text
from definitions
where sha256 = $1

-- name: current_definition
-- $1 machine's name text
select
    d.sha256,
    d.text
from machines as m
join definitions as d on d.sha256 = m.current
where m.name = $1

-- name: list_machines
select
    name,
    current,
    role_arn
from machines
where deleted_at is null

-- name: add_machine
-- $1 name text, $2 sha256 bytea, $3 file text
insert into machines (name, current, file)
values ($1, $2, $3)
on conflict do nothing
returning name

-- name: lock_machine
-- `is_filed`: a file publishes it, and it is not deleted.
-- $1 name text
select
    current,
    file is not null and deleted_at is null as is_filed
from machines
where name = $1
for update

-- name: is_published
-- $1 machine's name text, $2 sha256 bytea
select exists (
    select
    from machine_publications
    where name = $1
    and sha256 = $2
) as is_published

-- name: set_machine
-- A file takes over whatever has its name.
-- $1 name text, $2 sha256 bytea, $3 file text
update machines
set
    current = $2,
    file = $3,
    type = 'STANDARD',
    deleted_at = null,
    updated_at = statement_timestamp()
where name = $1

-- name: keep_publication
-- $1 machine's name text, $2 sha256 bytea
insert into machine_publications (name, sha256)
values ($1, $2)
on conflict (name, sha256) do update
set published_at = statement_timestamp()

-- What the Step Functions API makes and shows.

-- name: machine
-- $1 name text
select *
from machines
where name = $1

-- name: count_machines
select count(*) as machines
from machines
where deleted_at is null

-- name: create_machine
-- Returns nothing when the name is taken.
-- $1 name text, $2 sha256 bytea, $3 type text, $4 role_arn text, $5 logging text, $6 is_traced boolean
insert into machines as m (name, current, type, role_arn, logging, is_traced)
values ($1, $2, $3, $4, $5, $6)
on conflict (name) do update
set
    current = excluded.current,
    file = null,
    type = excluded.type,
    role_arn = excluded.role_arn,
    logging = excluded.logging,
    is_traced = excluded.is_traced,
    revision = null,
    created_at = statement_timestamp(),
    updated_at = statement_timestamp(),
    deleted_at = null
where m.deleted_at is not null
and not exists (
    select
    from executions as e
    where e.machine = m.name
    and e.status = 'RUNNING'
)
returning *

-- name: update_machine
-- Change what is not null, unless a file owns the machine.
-- $1 name text, $2 sha256 bytea, $3 role_arn text, $4 logging text, $5 is_traced boolean,
-- $6 revision uuid
update machines as m
set
    current = coalesce($2, m.current),
    role_arn = coalesce($3, m.role_arn),
    logging = coalesce($4, m.logging),
    is_traced = coalesce($5, m.is_traced),
    revision = case
        when m.revision is not null
        and coalesce($2, m.current) = m.current
        and coalesce($3, m.role_arn) is not distinct from m.role_arn
        and coalesce($4, m.logging) is not distinct from m.logging
        and coalesce($5, m.is_traced) = m.is_traced
        then m.revision
        else $6
    end,
    updated_at = statement_timestamp()
where m.name = $1
and m.file is null
and m.deleted_at is null
returning *

-- name: delete_machine
-- $1 name text
update machines
set deleted_at = statement_timestamp()
where name = $1
and file is null
and deleted_at is null
returning name

-- name: page_machines
-- $1 behind this name text, $2 limit int
select *
from machines
where name > $1
and deleted_at is null
order by name
limit $2

-- name: running_execution
-- $1 machine's name text
select id
from executions
where machine = $1
and status = 'RUNNING'
limit 1
