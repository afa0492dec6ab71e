"""A template renders the same, put together from pieces or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment

from service.mail.skeleton import SKELETONS_MAX, MailTemplate

PLAIN = Environment(autoescape=False)  # noqa: S701 - plain text is not escaped
HTML = Environment(autoescape=True)
SOURCES = [
    "Hello{% if name %} {{ name }}{% endif %}, {{ product }}: <a href='{{ link }}'>{{ link }}</a>",
    "{{ name|upper }} {{ link }}",
    "{{ name[:5] }}",
    "{{ name|length }}{{ product }}",
    "{% if 'x' in name %}x{% endif %}",
    "{% set n = name %}{{ n }}",
    "{% if not name %}nobody{% endif %}",
    "{{ name ~ link }}",
    "\ue002 is a mark {{ name }}",
]
TEXT = st.text(st.characters() | st.sampled_from("<>&'\"x\ue002\ue003"))


@given(st.sampled_from(SOURCES), st.booleans(), st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=2))
def test_every_mail_reads_as_if_rendered_by_itself(
    source: str, is_html: bool, mails: list[tuple[str, str, str]]
) -> None:
    environment = HTML if is_html else PLAIN
    template, alone = MailTemplate(environment, source), environment.from_string(source)
    for name, link, product in mails:
        values = {"name": name, "link": link, "product": product}
        shared = (product, bool(name), bool(link))
        assert template.render(values, shared) == alone.render(values)


@pytest.mark.parametrize(("source", "count"), [(SOURCES[0], 2), (SOURCES[1], 0)])
def test_mails_share_a_skeleton_where_values_are_only_filled_in(source: str, count: int) -> None:
    template = MailTemplate(HTML, source)
    for number in range(50):
        name = f"Ada {number}" if number % 2 else ""
        values = {"name": name, "link": f"https://example.org/{number}", "product": "P"}
        template.render(values, bool(name))
    assert len(template._skeletons) == count


def test_the_number_of_skeletons_is_bounded() -> None:
    template = MailTemplate(PLAIN, SOURCES[0])
    for number in range(SKELETONS_MAX * 2 + 1):
        template.render({"name": "Ada", "link": "L", "product": f"P{number}"}, number)
    assert len(template._skeletons) <= SKELETONS_MAX
