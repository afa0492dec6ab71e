"""What can go wrong with a mail, sorted by whose turn it is: ours to try again, or nobody's.

The class names are the error names that a workflow's Retry and Catch speak of. How replies are
sorted, by the command they answer (RFC 5321 4.2, RFC 3463):

* Connecting, greeting, EHLO, STARTTLS, AUTH, MAIL: whatever fails there has nothing to do with the
  visitor's address. An expired certificate, a wrong password or a refused sender is the operator's
  to mend, and the mail goes out afterwards. `MailUnavailable`, even for 5xx.
* RCPT 5xx: the address is refused for good, `MailRefused`. Not so when the enhanced status is
  5.7.x or the code asks for authentication: that server will not relay for *us*, which is a
  configuration or a blocklisting, and must not end the sign-ups of everybody.
* DATA 5xx: the message itself is refused, and the same bytes would be again: `MailRefused`,
  whatever the status.
* At both: syntax and sequence errors (500, 502, 503, 504, 555) are about the conversation and not
  about the address. A full mailbox (5.2.2, or 552 without a status, which RFC 5321 4.5.3.1.10
  wants treated as temporary) passes; a 552 with another status (5.3.4, too big) does not.
* 4xx, 421, a lost connection, a timeout: `MailUnavailable`. After a lost connection the server may
  have the mail all the same; the repeat has the same Message-ID and the same bytes.
"""

import re

_STATUS = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})\b")
_ADDRESS_LIKE = re.compile(r"\S*@\S*")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
REPLY_CHARACTERS_MAX = 200

_CONVERSATION_CODES = frozenset((500, 502, 503, 504, 555))
_AUTHENTICATION_CODES = frozenset((530, 534, 535, 538))
_STORAGE_CODE = 552
_MAILBOX_FULL = "5.2.2"


class MailUnavailable(Exception):
    """The mail cannot be sent now, for a reason that may pass: to be tried again.

    `code` and `status` (RFC 3463) are the server's, None where there was no such reply.
    """

    def __init__(self, message: str, code: int | None = None, status: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class MailRefused(Exception):
    """The mail server refuses this address or this message for good: no use in trying again.

    `code` is the reply's, `status` its enhanced status (RFC 3463) or None when it has none.
    """

    def __init__(self, message: str, code: int, status: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


def unavailable(verb: str, code: int, reply: str) -> MailUnavailable:
    """Return the error for a reply that has nothing to do with the address, to whatever verb."""
    return MailUnavailable(_worded(verb, code, reply), code, _status(reply))


def judge(verb: str, code: int, reply: str, recipient: str) -> MailUnavailable | MailRefused:
    """Return the error that a reply to RCPT or DATA stands for; its text names no address."""
    status = _status(reply)
    message = _worded(verb, code, _without(recipient, reply))
    if _is_final(verb, code, status):
        return MailRefused(message, code, status)
    return MailUnavailable(message, code, status)


def _is_final(verb: str, code: int, status: str | None) -> bool:
    if not 500 <= code <= 599 or code in _CONVERSATION_CODES:
        return False
    if status == _MAILBOX_FULL or (code == _STORAGE_CODE and status is None):
        return False
    if verb == "RCPT":
        is_about_us = status is not None and status.startswith("5.7.")
        return not is_about_us and code not in _AUTHENTICATION_CODES
    return True


def _status(reply: str) -> str | None:
    found = _STATUS.match(reply)
    return found[1] if found else None


def _worded(verb: str, code: int, reply: str) -> str:
    text = _UNPRINTABLE.sub(" ", _ADDRESS_LIKE.sub("[address]", reply))[:REPLY_CHARACTERS_MAX]
    return f"{verb} was answered {code} {text}".rstrip()


def _without(recipient: str, reply: str) -> str:
    """Return a reply without the recipient, whole or in parts ("user ada unknown").

    Mail errors end up in logs, histories and state data, where no address may be.
    """
    local, _, domain = recipient.partition("@")
    reply = _ADDRESS_LIKE.sub("[address]", reply)
    for part in (local, domain):
        reply = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", "[address]", reply, flags=re.IGNORECASE)
    return reply
