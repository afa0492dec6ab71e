"""The embedded stand-ins for a database server and a mail server, for the demo and the tests."""

from service.demo.inbox import Inbox, MailCatcher
from service.demo.installation import EmbeddedPostgresError
from service.demo.postgres import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "Inbox", "MailCatcher"]
