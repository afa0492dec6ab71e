"""JSONata's `$formatNumber`: numbers written by a picture.

Source: XPath and XQuery Functions 3.1, `format-number`, as JSONata narrows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import reduce
from itertools import pairwise
from typing import Final

from service.asl.query.jsonata.numbers import round_half_even
from service.asl.query.jsonata.signatures import Native
from service.asl.query.jsonata.values import UNDEFINED, JsonataError, Run, Value, double

PICTURE_CHARACTERS_MAX: Final = 1_024
READ_STEPS: Final = 150  # taking a picture apart, and for each of its characters
CHARACTER_STEPS: Final = 5
WRITE_STEPS: Final = 95
_DEFAULTS: Final = {
    "decimal-separator": ".",
    "grouping-separator": ",",
    "exponent-separator": "e",
    "minus-sign": "-",
    "percent": "%",
    "per-mille": "\u2030",
    "zero-digit": "0",
    "digit": "#",
    "pattern-separator": ";",
}


def check_length(picture: Value) -> None:
    """Raise T0410 or D3137 for a picture, or what it is to read, that is missing or too long."""
    if picture is UNDEFINED:
        raise JsonataError("T0410", index=2)
    if isinstance(picture, str) and len(picture) > PICTURE_CHARACTERS_MAX:
        most = PICTURE_CHARACTERS_MAX
        raise JsonataError("D3137", message=f"A picture has at most {most} characters")


@dataclass(frozen=True, slots=True)
class _Alphabet:
    """The characters that mean something in a picture of a number."""

    decimal: str
    grouping: str
    exponent: str
    minus: str
    percent: str
    per_mille: str
    optional: str
    separator: str
    digits: str

    @property
    def active(self) -> str:
        return self.digits + self.decimal + self.exponent + self.grouping + self.optional

    def count_digits(self, part: str, *, optional: bool = False) -> int:
        return sum(c in self.digits or (optional and c == self.optional) for c in part)


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture of a number, taken apart."""

    whole: str
    prefix: str
    suffix: str
    active: str
    mantissa: str
    integer: str
    fraction: str
    exponent: str | None


def _format_number(run: Run, value: Value, picture: Value, options: Value) -> Value:
    if value is UNDEFINED:
        return UNDEFINED
    check_length(picture)
    chosen = {} if options is UNDEFINED else options
    given = tuple(chosen.get(name, default) for name, default in _DEFAULTS.items())
    alphabet = _alphabet(dict(zip(_DEFAULTS, given, strict=True)))
    steps = READ_STEPS + CHARACTER_STEPS * len(picture)
    positive, negative = run.once((picture, given), steps, lambda: _read(picture, alphabet))
    number = double(value)
    _, bits = math.frexp(number)  # a very large or small number has as many more digits to write
    run.spend(WRITE_STEPS + len(picture) + abs(bits) // 3)
    return _written(number, positive if value >= 0 else negative, alphabet)


def _read(picture: str, alphabet: _Alphabet) -> tuple[_Picture, _Picture]:
    """Return how numbers are written that are not negative, and those that are."""
    written = picture.split(alphabet.separator)
    if len(written) > 2:
        raise JsonataError("D3080")
    pictures = [_take_apart(part, alphabet) for part in written]
    for part in pictures:
        _check(part, alphabet)
    first, last = pictures[0], pictures[-1]
    if len(pictures) == 1:
        last = replace(first, prefix=alphabet.minus + first.prefix)
    return first, last


def _alphabet(chosen: dict[str, Value]) -> _Alphabet:
    for name, character in chosen.items():
        if not isinstance(character, str) or len(character) != 1:
            raise JsonataError("D3137", message=f"The option {name} must be a single character")
    zero = ord(chosen["zero-digit"])
    return _Alphabet(
        chosen["decimal-separator"],
        chosen["grouping-separator"],
        chosen["exponent-separator"],
        chosen["minus-sign"],
        chosen["percent"],
        chosen["per-mille"],
        chosen["digit"],
        chosen["pattern-separator"],
        "".join(map(chr, range(zero, zero + 10))),
    )


def _take_apart(whole: str, alphabet: _Alphabet) -> _Picture:
    marks = alphabet.active.replace(alphabet.exponent, "")
    places = [place for place, character in enumerate(whole) if character in marks]
    start, end = (places[0], places[-1] + 1) if places else (0, len(whole))
    active = whole[start:end]
    if whole[end : end + 1] == alphabet.exponent:
        active += alphabet.exponent  # which then has no digits
    mantissa, mark, exponent = active.partition(alphabet.exponent)
    integer, point, fraction = mantissa.partition(alphabet.decimal)
    return _Picture(
        whole,
        whole[:start],
        whole[end:],
        active,
        mantissa,
        integer,
        fraction if point else whole[end:],
        exponent if mark else None,
    )


def _check(picture: _Picture, alphabet: _Alphabet) -> None:
    """Raise the last of the rules, in the order of their codes, that a picture breaks."""
    whole, grouping = picture.whole, alphabet.grouping
    point = whole.find(alphabet.decimal)
    optional = picture.integer.find(alphabet.optional)
    last_optional = picture.fraction.rfind(alphabet.optional)
    scaled = alphabet.percent in whole or alphabet.per_mille in whole
    exponent = picture.exponent
    broken = {
        "D3081": whole.count(alphabet.decimal) > 1,
        "D3082": whole.count(alphabet.percent) > 1,
        "D3083": whole.count(alphabet.per_mille) > 1,
        "D3084": alphabet.percent in whole and alphabet.per_mille in whole,
        "D3085": not alphabet.count_digits(picture.mantissa, optional=True),
        "D3086": any(character not in alphabet.active for character in picture.active),
        "D3087": point >= 0
        and grouping in (whole[point - 1 : point], whole[point + 1 : point + 2]),
        "D3088": point < 0 and picture.integer.endswith(grouping),
        "D3089": grouping * 2 in whole,
        "D3090": optional >= 0 and alphabet.count_digits(picture.integer[:optional]) > 0,
        "D3091": last_optional >= 0 and alphabet.count_digits(picture.fraction[last_optional:]) > 0,
        "D3092": bool(exponent) and scaled,
        "D3093": exponent is not None
        and (not exponent or alphabet.count_digits(exponent) < len(exponent)),
    }
    codes = [code for code, is_broken in broken.items() if is_broken]
    if codes:
        raise JsonataError(codes[-1])


def _written(value: float, picture: _Picture, alphabet: _Alphabet) -> str:
    integer_least = scale = alphabet.count_digits(picture.integer)
    fraction_least = alphabet.count_digits(picture.fraction)
    fraction_most = alphabet.count_digits(picture.fraction, optional=True)
    has_exponent = picture.exponent is not None
    if integer_least == fraction_most == 0:
        if has_exponent:
            fraction_least = fraction_most = 1
        else:
            integer_least = 1
    if has_exponent and integer_least == 0 and alphabet.optional in picture.integer:
        integer_least = 1
    if integer_least == fraction_least == 0:
        fraction_least = 1
    if alphabet.percent in picture.whole:
        value *= 100
    elif alphabet.per_mille in picture.whole:
        value *= 1000
    power = 0
    if has_exponent and value:
        while abs(value) < 10 ** (scale - 1):
            value, power = value * 10, power - 1
        while abs(value) > 10**scale:
            value, power = value / 10, power + 1
    rounded = abs(Decimal(repr(double(round_half_even(value, fraction_most)))))
    integer, _, fraction = f"{rounded:.{fraction_most}f}".partition(".")
    integer = _grouped(integer.lstrip("0").rjust(integer_least, "0"), picture.integer, alphabet)
    fraction = fraction.rstrip("0").ljust(fraction_least, "0")
    fraction = _grouped_fraction(fraction, picture.fraction, alphabet)
    text = integer + (alphabet.decimal + fraction if fraction else "")
    if picture.exponent is not None:
        sign = alphabet.minus if power < 0 else ""
        text += alphabet.exponent + sign + str(abs(power)).rjust(len(picture.exponent), "0")
    native = str.maketrans("0123456789", alphabet.digits)
    return picture.prefix + text.translate(native) + picture.suffix


def _grouped(digits: str, part: str, alphabet: _Alphabet) -> str:
    """Return the digits left of the point, grouped as in that part of the picture."""
    places = [
        alphabet.count_digits(part[place:], optional=True)
        for place, character in enumerate(part)
        if character == alphabet.grouping
    ]
    regular = reduce(math.gcd, places, 0)
    if regular and {regular * count for count in range(1, len(places) + 1)} == set(places):
        places = list(range(len(digits) - 1, 0, -1))
        places = [place for place in places if place % regular == 0]
    cuts = [len(digits) - place for place in places if place < len(digits)]
    return alphabet.grouping.join(_cut(digits, cuts))


def _grouped_fraction(digits: str, part: str, alphabet: _Alphabet) -> str:
    cuts = [
        alphabet.count_digits(part[:place], optional=True)
        for place, character in enumerate(part)
        if character == alphabet.grouping
    ]
    return alphabet.grouping.join(_cut(digits, [cut for cut in cuts if cut < len(digits)]))


def _cut(digits: str, cuts: Iterable[int]) -> list[str]:
    return [digits[start:end] for start, end in pairwise([0, *cuts, len(digits)])]


PICTURE_FUNCTIONS: Final = (Native("formatNumber", "<n-so?:s>", _format_number, 3),)
