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
    file,
    updated_at
from machines
order by name

-- name: add_machine
-- $1 name text, $2 sha256 bytea, $3 file text
insert into machines (name, current, file)
values ($1, $2, $3)
on conflict do nothing
returning name

-- name: lock_machine
-- $1 name text
select current
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
-- $1 name text, $2 sha256 bytea, $3 file text
update machines
set
    current = $2,
    file = $3,
    updated_at = statement_timestamp()
where name = $1

-- name: keep_publication
-- $1 machine's name text, $2 sha256 bytea
insert into machine_publications (name, sha256)
values ($1, $2)
on conflict (name, sha256) do update
set published_at = statement_timestamp()
