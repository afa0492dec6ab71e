"""The parts of the JSONata library that are used: its parser, its messages, its date pictures.

Its evaluator is not: it takes null for undefined and every integer for a double, has no bound but
the clock's, and needs 50 to 200 microseconds for what compiled expressions do in a few.
"""

from __future__ import annotations

import re
import sys
from typing import Final

import re2

# Importing the library lifts the whole process's recursion limit to 10,000: deep enough for a
# hostile document to overflow the stack of the C decoders, which rely on the limit.
_recursion_limit = sys.getrecursionlimit()

from jsonata.datetimeutils import DateTimeUtils  # noqa: E402
from jsonata.jexception import JException  # noqa: E402
from jsonata.parser import Parser  # noqa: E402
from jsonata.regex_engine import RegexFlags  # noqa: E402
from jsonata.signature import Signature  # noqa: E402

sys.setrecursionlimit(_recursion_limit)

__all__ = [
    "MESSAGES",
    "DateTimeUtils",
    "JException",
    "Parser",
    "RegexFlags",
    "Signature",
    "UnsupportedPattern",
    "compile_pattern",
    "parser_error",
]

REGEX_MEMORY_BYTES_MAX: Final = 1024 * 1024

# The library's catalogue says "Object" where JSONata says "function", and quotes in its own way.
MESSAGES: Final = {
    code: template.replace(" Object ", " function ").replace('"', "'")
    for code, template in JException.error_codes.items()
}


_NUMBER: Final = re.compile(r"[0-9.]+(?:[eE][-+]?[0-9]+)?")


class UnsupportedPattern(Exception):
    """A regular expression that cannot be matched in linear time, or is none."""


def compile_pattern(pattern: str, flags: RegexFlags) -> re2._Regexp:
    """Return a regular expression that matches in time linear in the text.

    Raise UnsupportedPattern for what is no regular expression, or has a back-reference or looks
    around.
    """
    options = re2.Options()
    options.case_sensitive = not flags.case_insensitive
    options.log_errors = False
    options.max_mem = REGEX_MEMORY_BYTES_MAX
    # JavaScript's way to name a character, in RE2's words.
    plain = re.sub(r"\\(?:u([0-9A-Fa-f]{4})|.)", _character, pattern)
    try:
        return re2.compile(f"(?m:{plain})" if flags.multiline else plain, options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0]
        raise UnsupportedPattern(
            f"The regular expression /{pattern}/ cannot be used: "
            f"{reason.decode() if isinstance(reason, bytes) else reason}"
        ) from error


def _character(escape: re.Match[str]) -> str:
    return f"\\x{{{escape[1]}}}" if escape[1] else escape[0]


def parser_error(error: Exception, text: str) -> tuple[str, int]:
    """Return why the parser gave up on a text, led by JSONata's code for it, and the position."""
    if not isinstance(error, JException):
        # Where the reference finds no more characters, the library runs over the end.
        code = "S0106" if text.count("/*") > text.count("*/") else "S0207"
        return f"{code}: {MESSAGES[code]}", len(text)
    code = error.error
    if code == "S0301" and error.current is not None:
        code = "S0103"  # the library's code for an escape sequence is that of a regex
    template = MESSAGES.get(code)
    if template is None:
        return str(error), error.location
    current = error.current
    if code == "S0102" and (number := _NUMBER.match(text, error.location)):
        current = number[0]  # the library does not tell which it is
    shown = iter((current, error.expected, error.extra))
    message = re.sub(r"\{\{\w+\}\}", lambda _: f'"{next(shown, "")}"', template)
    return f"{code}: {message}", error.location
