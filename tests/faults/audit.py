"""What a run has the database itself note of accounts and executions, and how that is read."""

from __future__ import annotations

from typing import Final

AUDIT: Final = """
create table audit (account uuid not null, change text not null);
create function note_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into audit values (new.id, 'signup');
    else
        if new.status <> old.status then
            insert into audit values (new.id, new.status);
        end if;
        if new.links <> old.links then
            insert into audit values (new.id, 'link ' || new.links);
        end if;
    end if;
    return null;
end
$$;
create trigger note_change after insert or update on accounts
for each row execute function note_change();

create table takeovers (execution uuid not null);
create function has_lapsed(worker uuid) returns boolean stable language sql as $$
    select not exists (
        select from workers where id = worker
        and heartbeat_at >= clock_timestamp() - make_interval(secs => lease_seconds)
    )
$$;
create function note_takeover() returns trigger language plpgsql as $$
begin
    insert into takeovers values (new.id);
    return null;
end
$$;
create trigger note_takeover after update on executions
for each row when (old.owner <> new.owner and has_lapsed(old.owner))
execute function note_takeover();
"""
"""Notes each change of an account each time that it happens, whoever makes it; and each execution
that is taken from an owner whose lease has run out, as the statement that takes it sees the lease.
"""

CHANGED_TWICE: Final = """
select account::text || ': ' || change || ' ' || count(*) || ' times' as story
from audit group by account, change having count(*) > 1
"""
TAKEOVERS: Final = "select execution::text, count(*) from takeovers group by execution"
VERIFIED_AND_EXPIRED: Final = """
select account::text from audit where change in ('verified', 'expired')
group by account having count(distinct change) = 2
"""
