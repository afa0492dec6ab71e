"""A mail's template, rendered once for all mails that differ only in the visitor's name and link.

Rendering three templates with Jinja2 takes a tenth of what a whole signup costs, and all mails of a
kind in one language are the same but for those two values. So a template is rendered with marks in
their place, cut at the marks, and each mail is put together from the pieces. That holds for a
template that writes the values out as they are, or asks whether they are there, and does nothing
else with them; another one is rendered anew for each mail.
"""

import re
from collections.abc import Hashable, Mapping
from typing import Final

from jinja2 import Environment, nodes
from markupsafe import escape

SKELETONS_MAX: Final = 64
"""Of one template: a few for each expiry that a workflow states."""

# From the private use area. A visitor's value is never searched for them.
_MARKS: Final = {"name": "\ue002", "link": "\ue003"}
_CUT: Final = re.compile("([\ue002\ue003])")
_VALUE_OF_MARK: Final = {mark: value for value, mark in _MARKS.items()}


class MailTemplate:
    """A compiled template."""

    def __init__(self, environment: Environment, source: str) -> None:
        """Compile `source`. Raises jinja2.TemplateSyntaxError."""
        self._template = environment.from_string(source)
        self._is_html = bool(environment.autoescape)
        self._has_skeletons = _only_fills_in(environment.parse(source)) and not _CUT.search(source)
        self._skeletons: dict[Hashable, list[str] | None] = {}

    def render(self, values: Mapping[str, str], shared: Hashable) -> str:
        """Return the template's text with these values in it.

        `shared` is equal for all mails whose values are, but for the name and the link, and which
        both have these or have them not.
        """
        skeleton = self._skeletons.get(shared)
        if skeleton is None:
            if shared in self._skeletons or not self._has_skeletons:
                return self._template.render(values)
            self._skeletons[shared] = self._cut(values)
            return self.render(values, shared)
        pieces = skeleton.copy()
        for at in range(1, len(pieces), 2):
            value = values[_VALUE_OF_MARK[pieces[at]]]
            pieces[at] = str(escape(value)) if self._is_html else value
        return "".join(pieces)

    def _cut(self, values: Mapping[str, str]) -> list[str] | None:
        """Return the pieces of the text, with marks between them; None if a value has marks."""
        if len(self._skeletons) >= SKELETONS_MAX:
            self._skeletons.clear()
        if any(_CUT.search(values[name]) for name in values.keys() - _MARKS):
            return None
        own = {name: mark for name, mark in _MARKS.items() if values.get(name)}
        return _CUT.split(self._template.render({**values, **own}))


def _only_fills_in(template: nodes.Template) -> bool:
    """Tell whether name and link are only written out, or asked for with a bare `if`."""
    harmless = {
        id(child)
        for output in template.find_all(nodes.Output)
        for child in output.nodes
        if isinstance(child, nodes.Name)
    }
    harmless |= {
        id(branch.test)
        for branch in template.find_all(nodes.If)
        if isinstance(branch.test, nodes.Name)
    }
    return all(
        id(name) in harmless for name in template.find_all(nodes.Name) if name.name in _MARKS
    )
