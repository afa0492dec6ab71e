"""Postgres, through asyncpg and `sql/`; and the same store in memory, for tests and `simulate`."""

from service.store.accounts import Account, Accounts, Contact
from service.store.catalog import ExecutionRows, MachineRows
from service.store.database import Database, database_time
from service.store.executions import PostgresStore
from service.store.machines import DefinitionRows
from service.store.memory import MemoryStore
from service.store.migrations import ChangedMigration, migrate, pending_migrations
from service.store.notifier import Notifier

__all__ = [
    "Account",
    "Accounts",
    "ChangedMigration",
    "Contact",
    "Database",
    "DefinitionRows",
    "ExecutionRows",
    "MachineRows",
    "MemoryStore",
    "Notifier",
    "PostgresStore",
    "database_time",
    "migrate",
    "pending_migrations",
]
