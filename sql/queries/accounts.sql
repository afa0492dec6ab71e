-- Accounts: the effects that share an execution's transaction, and reads and writes beside them.
--
-- An effect takes $1 the ordinals of its rows and then one array for each column, and returns at most
-- one row for each ordinal. Where one decides something it has a companion `.lock`, run before it with
-- the same parameters: under READ COMMITTED each statement has a snapshot of its own, so what the
-- first one waited for the second one sees. Decided in one statement, a row that changed while its
-- lock was waited for would be judged half by its old version and half by its new one. One that begins
-- with its execution may have a companion `.start`, which inserts both in one statement.
-- No order is asked for where a limit bounds what is read by address: it would be read by id instead.
-- Rows are locked in the order of their keys, so that two batches meet and neither crosses the other.

-- name: insert_account
-- Arrays: $1 ordinal, $2 bucket, $3 id, $4 address, $5 identity_key, $6 identity_version, $7 name,
-- $8 locale, $9 data
with signup as materialized (
    select *
    from unnest(
        $1::integer[], $2::smallint[], $3::uuid[], $4::text[], $5::text[], $6::smallint[],
        $7::text[], $8::text[], $9::text[]
    ) as r (ordinal, bucket, id, address, identity_key, identity_version, name, locale, data)
),
added as (
    insert into accounts (
        bucket, id, address, identity_key, identity_version, name, locale, data
    )
    select
        bucket,
        id,
        address,
        identity_key,
        identity_version,
        name,
        locale,
        data
    from signup
    on conflict do nothing
)
select
    ordinal,
    id
from signup

-- name: insert_account.start
-- `insert_executions`, and the accounts of those that were inserted. An account that is there stays.
-- Arrays: $1 to $18 as for `insert_executions`; $19 bucket, $20 id, $21 address, $22 identity_key,
-- $23 identity_version, $24 name, $25 locale, $26 data
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
),
added as (
    insert into accounts (
        bucket, id, address, identity_key, identity_version, name, locale, data
    )
    select r.*
    from unnest(
        $19::smallint[], $20::uuid[], $21::text[], $22::text[], $23::smallint[], $24::text[],
        $25::text[], $26::text[]
    ) as r (bucket, id, address, identity_key, identity_version, name, locale, data)
    where (r.id in (select id from begun)) is true
    on conflict do nothing
)
select
    bucket,
    id
from begun

-- name: verify_account.lock
-- Lock the accounts asked about and their rivals, the pending signups of the same address (256 of them
-- at most; whoever is beyond loses the address all the same).
-- Arrays: $1 ordinal, $2 bucket, $3 id, $4 n
with asked as materialized (
    select
        a.bucket,
        a.id,
        a.identity_key,
        a.status
    from unnest($1::integer[], $2::smallint[], $3::uuid[], $4::integer[])
    as r (ordinal, bucket, id, n)
    cross join lateral (
        select
            bucket,
            id,
            identity_key,
            status
        from accounts
        where bucket = r.bucket
        and id = r.id
        limit 1
    ) as a
),
rivals as materialized (
    select
        a.bucket,
        a.id
    from (
        select distinct
            bucket,
            identity_key
        from asked
        where status = 'pending'
    ) as k
    cross join lateral (
        select
            bucket,
            id
        from accounts
        where bucket = k.bucket
        and identity_key = k.identity_key
        and status = 'pending'
        limit 256
    ) as a
),
all_of_them as materialized (
    select
        bucket,
        id
    from asked
    union
    select
        bucket,
        id
    from rivals
    order by bucket, id
)
select a.id
from all_of_them as k
cross join lateral (
    select id
    from accounts
    where bucket = k.bucket
    and id = k.id
    for update
) as a

-- name: verify_account
-- Decide signups whose link was followed: the first to insert the address's row owns it and is
-- verified, its rivals are superseded. Only a pending signup is decided, by one of its last three links.
-- Returns ordinal, status (verified, superseded, expired) and whether it is newly so; an older link of
-- a signup that is still pending is answered as expired. An unknown account has no row.
-- Arrays: $1 ordinal, $2 bucket, $3 id, $4 n (which link)
with asked as materialized (
    select
        r.ordinal,
        a.*,
        a.status = 'pending' and r.n between greatest(1, a.links - 2) and a.links as is_eligible
    from unnest($1::integer[], $2::smallint[], $3::uuid[], $4::integer[])
    as r (ordinal, bucket, id, n)
    cross join lateral (
        select
            bucket,
            id,
            identity_key,
            status,
            links,
            ctid as place
        from accounts
        where bucket = r.bucket
        and id = r.id
        limit 1
    ) as a
),
won as (
    insert into verified_addresses (bucket, identity_key, account_id)
    select distinct on (bucket, identity_key)
        bucket,
        identity_key,
        id
    from asked
    where is_eligible
    order by bucket, identity_key, ordinal
    on conflict do nothing
    returning
        bucket,
        identity_key,
        account_id
),
decidable as materialized (
    select place
    from asked
    where is_eligible
    union
    select a.place
    from won
    cross join lateral (
        select ctid as place
        from accounts
        where bucket = won.bucket
        and identity_key = won.identity_key
        and status = 'pending'
        limit 256
    ) as a
),
decided as (
    update accounts as a
    set
        status = case
            when (a.bucket, a.id) in (select bucket, account_id from won) then 'verified'
            else 'superseded'
        end,
        decided_at = statement_timestamp()
    from decidable
    where a.ctid = decidable.place
    and a.status = 'pending'
    returning
        a.bucket,
        a.id,
        a.status
)
select
    ordinal,
    case
        when (bucket, id) in (select bucket, id from decided where status = 'verified')
            then 'verified'
        when (bucket, id) in (select bucket, id from decided where status = 'superseded')
            then 'superseded'
        when status = 'pending' then 'expired'
        else status
    end as status,
    (bucket, id) in (select bucket, id from decided where status = 'verified')
    and row_number() over (partition by bucket, id order by is_eligible desc, ordinal) = 1 as newly
from asked

-- name: get_account
-- Arrays: $1 ordinal, $2 bucket, $3 id
select
    r.ordinal,
    a.status,
    a.data,
    a.status = 'verified' as verified
from unnest($1::integer[], $2::smallint[], $3::uuid[]) as r (ordinal, bucket, id)
cross join lateral (
    select
        status,
        data
    from accounts
    where bucket = r.bucket
    and id = r.id
    limit 1
) as a

-- name: delete_unverified_account.lock
-- Arrays: $1 ordinal, $2 bucket, $3 id
select a.id
from (
    select
        bucket,
        id
    from unnest($1::integer[], $2::smallint[], $3::uuid[]) as r (ordinal, bucket, id)
    order by bucket, id
) as k
cross join lateral (
    select id
    from accounts
    where bucket = k.bucket
    and id = k.id
    for update
) as a

-- name: delete_unverified_account
-- Turn signups that nobody verified into tombstones: status and time, nothing of the person.
-- Returns ordinal, whether it was deleted now, and the status it has then. An unknown one has no row.
-- Arrays: $1 ordinal, $2 bucket, $3 id
with asked as materialized (
    select
        r.ordinal,
        a.*,
        row_number() over (partition by a.bucket, a.id order by r.ordinal) = 1
        and a.status in ('pending', 'superseded') as is_deletable
    from unnest($1::integer[], $2::smallint[], $3::uuid[]) as r (ordinal, bucket, id)
    cross join lateral (
        select
            bucket,
            id,
            status,
            ctid as place
        from accounts
        where bucket = r.bucket
        and id = r.id
        limit 1
    ) as a
),
deleted as (
    update accounts as a
    set
        status = 'expired',
        address = null,
        identity_key = null,
        name = null,
        locale = null,
        data = null,
        decided_at = statement_timestamp()
    from asked
    where a.ctid = asked.place
    and asked.is_deletable
)
select
    ordinal,
    is_deletable as deleted,
    case status
        when 'pending' then 'expired'
        when 'superseded' then 'expired'
        else status
    end as status
from asked

-- name: account_status
-- $1 bucket smallint, $2 id uuid
select status
from accounts
where bucket = $1
and id = $2

-- name: contacts
-- What a mail needs to know, of many accounts. `owner` is the account that has verified the address.
-- Arrays: $1 bucket, $2 id
select
    a.*,
    v.account_id as owner
from unnest($1::smallint[], $2::uuid[]) as k (bucket, id)
cross join lateral (
    select
        bucket,
        id,
        address,
        identity_key,
        name,
        locale,
        status,
        links
    from accounts
    where bucket = k.bucket
    and id = k.id
    limit 1
) as a
left join lateral (
    select account_id
    from verified_addresses
    where bucket = a.bucket
    and identity_key = a.identity_key
    limit 1
) as v on true

-- name: claim_notice
-- Take the right to tell an address's owner of a new signup: once a day.
-- $1 bucket smallint, $2 identity_key text
update verified_addresses
set notified_at = statement_timestamp()
where bucket = $1
and identity_key = $2
and (notified_at is null or notified_at <= statement_timestamp() - interval '1 day')
returning account_id

-- name: account
-- $1 bucket smallint, $2 id uuid
select
    bucket,
    id,
    status,
    address,
    name,
    locale,
    data,
    links,
    created_at,
    decided_at
from accounts
where bucket = $1
and id = $2

-- name: list_accounts
-- The page after a key, in the order of keys.
-- $1 bucket smallint and $2 id uuid to go on after, $3 status text or null for all, $4 limit int
select
    bucket,
    id,
    status,
    address,
    name,
    locale,
    data,
    links,
    created_at,
    decided_at
from accounts
where (bucket, id) > ($1, $2)
and ($3::text is null or status = $3)
order by bucket, id
limit $4

-- name: list_accounts_of_address
-- The bucket is the first byte of the key's SHA-256, for ever.
-- $1 identity_key text, $2 id uuid to go on after, $3 status text or null for all, $4 limit int
select
    bucket,
    id,
    status,
    address,
    name,
    locale,
    data,
    links,
    created_at,
    decided_at
from accounts
where bucket = get_byte(sha256(convert_to($1::text, 'UTF8')), 0)::smallint
and identity_key = $1
and id > $2
and ($3::text is null or status = $3)
order by id
limit $4

-- name: lock_account
-- $1 bucket smallint, $2 id uuid
select identity_key
from accounts
where bucket = $1
and id = $2
for update

-- name: erase_account
-- $1 bucket smallint, $2 id uuid
update accounts
set
    status = 'expired',
    address = null,
    identity_key = null,
    name = null,
    locale = null,
    data = null,
    decided_at = statement_timestamp()
where bucket = $1
and id = $2

-- name: disown_address
-- $1 bucket smallint, $2 identity_key text, $3 account_id uuid
delete from verified_addresses
where bucket = $1
and identity_key = $2
and account_id = $3

-- name: hold_execution
-- Lock an execution, as steps do before they lock its account, so that nobody redrives it meanwhile.
-- $1 bucket smallint, $2 id uuid
select e.status
from executions as e
where e.bucket = $1
and e.id = $2
for update

-- name: erase_execution
-- Leave of an execution that it was there, when, and how it ended; nothing of what it was about, and so
-- nothing to redrive it from.
-- $1 bucket smallint, $2 id uuid
update executions
set
    input = '{}',
    checkpoint = null,
    output = null,
    cause = null
where bucket = $1
and id = $2
and status <> 'RUNNING'

-- name: erase_history
-- $1 bucket smallint, $2 execution_id uuid
delete from history
where bucket = $1
and execution_id = $2

-- name: delete_tombstones
-- $1 age in days int, $2 limit int
with passed as materialized (
    select ctid as place
    from accounts
    where status = 'expired'
    and decided_at < statement_timestamp() - make_interval(days => $1::integer)
    order by decided_at
    limit $2
    for update skip locked
)
delete from accounts as a
using passed
where a.ctid = passed.place
returning a.id
