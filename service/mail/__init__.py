"""Mail: templates rendered to bytes, and kept connections to an SMTP server."""

from service.mail.errors import MailRefused, MailUnavailable
from service.mail.message import SHIPPED_TEMPLATES, BadTemplates, Kind, Templates, Variables
from service.mail.mime import Envelope, InvalidHeader, Mailbox, parse_mailbox
from service.mail.session import Timeouts, Tls
from service.mail.transport import SmtpTransport

__all__ = [
    "SHIPPED_TEMPLATES",
    "BadTemplates",
    "Envelope",
    "InvalidHeader",
    "Kind",
    "MailRefused",
    "MailUnavailable",
    "Mailbox",
    "SmtpTransport",
    "Templates",
    "Timeouts",
    "Tls",
    "Variables",
    "parse_mailbox",
]
