"""JSONata's functions of text: strings, regular expressions, Base64 and URLs."""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from service.asl.query.jsonata.regex import found_by
from service.asl.query.jsonata.signatures import Native
from service.asl.query.jsonata.values import (
    CHARACTERS_PER_STEP_COPIED,
    ELEMENT_BYTES,
    UNDEFINED,
    Function,
    JsonataError,
    Run,
    Sequence,
    Value,
    apply,
    text,
)

CHARACTERS_PER_STEP_SEARCHED: Final = 128  # for a text
CHARACTERS_PER_STEP_ESCAPED: Final = 2  # one by one
FILL_STEPS: Final = 8  # for a `$` of a replacement

_BLANKS: Final = re.compile("[ \t\n\r]+")
_MALFORMED_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_URL_CHARACTERS: Final = "-_.!~*'()"
_URL_DELIMITERS: Final = ";,/?:@&=+$#"
_ESCAPES_OF_DELIMITERS: Final = re.compile("%(?:2[346BCF]|3[ABDF]|40)", re.IGNORECASE)


def _at_most(limit: Value, code: str, argument: int) -> int | float:
    if limit is UNDEFINED:
        return math.inf
    number: float = limit
    if number < 0:
        raise JsonataError(code, value=limit, index=argument)
    return number if math.isinf(number) else math.ceil(number)


def _string(run: Run, value: Value, prettify: Value) -> Value:
    return value if value is UNDEFINED else text(run, value, pretty=prettify is True)


def _length(run: Run, subject: Value) -> Value:
    return subject if subject is UNDEFINED else len(subject)


def _substring(run: Run, subject: Value, start: Value, length: Value) -> Value:
    if subject is UNDEFINED:
        return UNDEFINED
    first = 0 if start is UNDEFINED or len(subject) + start < 0 else start
    if length is UNDEFINED:
        return subject[int(first) :]
    if length <= 0:
        return ""
    end = first + length if first >= 0 else len(subject) + first + length
    return subject[int(first) : int(end)]


def _substring_before(run: Run, subject: Value, chars: Value) -> Value:
    return (
        subject if UNDEFINED in (subject, chars) else subject.partition(chars)[0] if chars else ""
    )


def _substring_after(run: Run, subject: Value, chars: Value) -> Value:
    if subject is UNDEFINED or chars is UNDEFINED or chars not in subject:
        return subject
    return subject[subject.index(chars) + len(chars) :]


def _lowercase(run: Run, subject: Value) -> Value:
    return subject if subject is UNDEFINED else subject.lower()


def _uppercase(run: Run, subject: Value) -> Value:
    return subject if subject is UNDEFINED else subject.upper()


def _trim(run: Run, subject: Value) -> Value:
    return subject if subject is UNDEFINED else _BLANKS.sub(" ", subject).strip(" ")


def _pad(run: Run, subject: Value, width: Value, characters: Value) -> Value:
    if subject is UNDEFINED or width is UNDEFINED:
        return subject
    missing = abs(int(width)) - len(subject)
    if missing <= 0:
        return subject
    run.hold(2 * missing)  # the padding, and the text with it
    run.spend(missing // CHARACTERS_PER_STEP_COPIED)
    unit = " " if characters is UNDEFINED or not characters else characters
    padding = unit * (missing // len(unit)) + unit[: missing % len(unit)]
    return subject + padding if width > 0 else padding + subject


def _contains(run: Run, subject: Value, token: Value) -> Value:
    if subject is UNDEFINED or token is UNDEFINED:
        return UNDEFINED if subject is UNDEFINED else False
    if isinstance(token, str):
        return token in subject
    return next(found_by(run, token, subject), None) is not None


def _split(run: Run, subject: Value, separator: Value, limit: Value) -> Value:
    if subject is UNDEFINED:
        return UNDEFINED
    most = _at_most(limit, "D3020", 3)
    parts: list[Value] = []
    if separator is UNDEFINED:
        parts = [subject]
    elif isinstance(separator, str):
        count = subject.count(separator) + 1
        run.spend(count)
        run.hold(ELEMENT_BYTES * count)
        parts = subject.split(separator) if separator else list(subject)
    else:
        start = 0
        for match in found_by(run, separator, subject):
            parts.append(subject[start : match["start"]])
            start = match["end"]
            if len(parts) >= most:
                break
        parts.append(subject[start:])
    return parts if len(parts) <= most else parts[: int(most)]


def _join(run: Run, parts: Value, separator: Value) -> Value:
    if parts is UNDEFINED:
        return UNDEFINED
    between = "" if separator is UNDEFINED else separator
    run.hold(sum(map(len, parts)) + len(between) * len(parts))
    return between.join(parts)


def _match(run: Run, subject: Value, matcher: Value, limit: Value) -> Value:
    if subject is UNDEFINED:
        return UNDEFINED
    most = _at_most(limit, "D3040", 3)
    result = Sequence()
    if most:
        for found in found_by(run, matcher, subject):
            result.append(
                {"match": found["match"], "index": found["start"], "groups": found["groups"]}
            )
            run.hold(len(found["match"]))
            if len(result) >= most:
                break
    return result


def _replace(run: Run, subject: Value, pattern: Value, replacement: Value, limit: Value) -> Value:
    if subject is UNDEFINED:
        return UNDEFINED
    if pattern == "":
        raise JsonataError("D3010", value=pattern, index=2)
    most = _at_most(limit, "D3011", 4)
    if most == 0 or UNDEFINED in (pattern, replacement):
        return subject
    if isinstance(pattern, str):
        count = int(min(most, subject.count(pattern)))
        substitute = text(run, replacement)
        run.hold(count * len(substitute))
        run.spend(count + count * len(substitute) // CHARACTERS_PER_STEP_COPIED)
        return subject.replace(pattern, substitute, count)
    return _replace_matches(run, subject, pattern, replacement, most)


def _replace_matches(
    run: Run, subject: str, pattern: Function, replacement: Value, most: float
) -> str:
    parts: list[str] = []
    position = 0
    filling = FILL_STEPS * replacement.count("$") if isinstance(replacement, str) else 0
    for count, found in enumerate(found_by(run, pattern, subject), 1):
        if isinstance(replacement, str):
            run.spend(filling)
            substitute = _filled(replacement, found)
        else:
            substitute = apply(run, replacement, [found])
            if not isinstance(substitute, str):
                raise JsonataError("D3012", value=substitute)
        run.hold(len(substitute))
        run.spend(len(substitute) // CHARACTERS_PER_STEP_COPIED)
        parts += [subject[position : found["start"]], substitute]
        position = found["start"] + len(found["match"])
        if count >= most:
            break
    parts.append(subject[position:])
    return "".join(parts)


def _filled(replacement: str, found: dict[str, Value]) -> str:
    """Return a replacement with its `$0`, `$1`, ... filled in from a match, and `$$` as `$`."""
    groups: list[Value] = found["groups"]
    before, *pieces = replacement.split("$")
    filled = [before]
    pieces.reverse()
    while pieces:
        piece = pieces.pop()
        if not piece and pieces:  # `$$`
            filled.append("$" + pieces.pop())
        elif piece.startswith("0"):
            filled.append(found["match"] + piece[1:])
        else:
            filled.append(_group_of(piece, groups))
    return "".join(filled)


def _group_of(piece: str, groups: list[Value]) -> str:
    """Return what `$` and a piece of a replacement stand for, by the digits that lead it."""
    digits = re.match("[0-9]*", piece[: len(str(len(groups)))])
    assert digits is not None
    name = digits[0]
    if len(name) > 1 and int(name) > len(groups):
        name = name[:-1]
    if not name:
        return "$" + piece
    index = int(name) - 1
    group = groups[index] if 0 <= index < len(groups) else UNDEFINED
    return f"{'' if group is UNDEFINED else group}{piece[len(name) :]}"


def _base64_encode(run: Run, subject: Value) -> Value:
    if subject is UNDEFINED:
        return UNDEFINED
    return base64.b64encode(_bytes(subject, "base64encode")).decode("ascii")


def _base64_decode(run: Run, subject: Value) -> Value:
    if subject is UNDEFINED:
        return UNDEFINED
    try:
        return base64.b64decode(subject, validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise JsonataError("D3137", message=f"The text is not Base64 of UTF-8: {error}") from error


def _bytes(subject: str, function: str) -> bytes:
    try:
        return subject.encode("utf-8")
    except UnicodeEncodeError as error:
        # Half of a surrogate pair has no UTF-8, and so no escape.
        raise JsonataError("D3140", function_name=function, value=subject) from error


def _encode(function: str, characters: str) -> Native:
    def encode(run: Run, subject: Value) -> Value:
        if subject is UNDEFINED:
            return UNDEFINED
        return quote(_bytes(subject, function), safe=characters)

    return Native(function, "<s-:s>", encode, 1, rate=CHARACTERS_PER_STEP_ESCAPED)


def _decode(function: str, *, keeps_delimiters: bool) -> Native:
    def decode(run: Run, subject: Value) -> Value:
        if subject is UNDEFINED:
            return UNDEFINED
        kept = subject
        if keeps_delimiters:
            kept = _ESCAPES_OF_DELIMITERS.sub(lambda escape: "%25" + escape[0][1:], subject)
        try:
            if _MALFORMED_ESCAPE.search(subject):
                raise ValueError(subject)
            return unquote_to_bytes(_bytes(kept, function)).decode("utf-8")
        except ValueError as error:
            raise JsonataError("D3140", function_name=function, value=subject) from error

    return Native(function, "<s-:s>", decode, 1)


TEXT_FUNCTIONS: Final = (
    Native("string", "<x-b?:s>", _string, 1, rate=None),
    Native("length", "<s-:n>", _length, 1, rate=None),
    Native("substring", "<s-nn?:s>", _substring, 3, rate=CHARACTERS_PER_STEP_COPIED),
    Native("substringBefore", "<s-s:s>", _substring_before, 2, rate=CHARACTERS_PER_STEP_SEARCHED),
    Native("substringAfter", "<s-s:s>", _substring_after, 2, rate=CHARACTERS_PER_STEP_SEARCHED),
    Native("lowercase", "<s-:s>", _lowercase, 1),
    Native("uppercase", "<s-:s>", _uppercase, 1),
    Native("trim", "<s-:s>", _trim, 1),
    Native("pad", "<s-ns?:s>", _pad, 3, rate=None),
    Native("contains", "<s-(sf):b>", _contains, 2, rate=CHARACTERS_PER_STEP_SEARCHED),
    Native("split", "<s-(sf)n?:a<s>>", _split, 3, rate=CHARACTERS_PER_STEP_SEARCHED),
    Native("join", "<a<s>s?:s>", _join, 2, rate=4),
    Native("match", "<s-f<s:o>n?:a<o>>", _match, 3, rate=CHARACTERS_PER_STEP_SEARCHED),
    Native("replace", "<s-(sf)(sf)n?:s>", _replace, 4, rate=CHARACTERS_PER_STEP_SEARCHED),
    Native("base64encode", "<s-:s>", _base64_encode, 1),
    Native("base64decode", "<s-:s>", _base64_decode, 1),
    _encode("encodeUrlComponent", _URL_CHARACTERS),
    _encode("encodeUrl", _URL_CHARACTERS + _URL_DELIMITERS),
    _decode("decodeUrlComponent", keeps_delimiters=False),
    _decode("decodeUrl", keeps_delimiters=True),
)
