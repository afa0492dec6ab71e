"""`serve` with a mail transport that trusts the tests' certificate and is short of patience.

A thousand timeouts of 20 seconds each would take a process six hours on its eight connections. So
its timeouts are shorter here, and it has more connections; all else is the service as it is.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import uvloop

from service.app import Service, run_until_stopped
from service.config import load_config
from service.log import configure
from service.mail import SmtpTransport
from service.mail.session import Timeouts
from tests.mail.certificate import client_context

TIMEOUTS: Final = Timeouts(connect=2.0, command=2.0, data=10.0)
CONNECTIONS_MAX: Final = 64
MAILS_PER_CONNECTION_MAX: Final = 4
"""So that there are handshakes enough to fail."""


def main() -> int:
    """Serve until stopped, as `countersign serve` does."""
    config = load_config(os.environ)
    configure(config.log_format, config.log_level)
    url = config.smtp_url
    transport = SmtpTransport(
        url.host,
        url.port,
        url.tls,
        url.username,
        url.password,
        connections_max=CONNECTIONS_MAX,
        mails_per_connection_max=MAILS_PER_CONNECTION_MAX,
        timeouts=TIMEOUTS,
        tls_context=client_context(),
    )
    return uvloop.run(run_until_stopped(Service(config, transport=transport)))


if __name__ == "__main__":
    sys.exit(main())
