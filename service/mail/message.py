"""The mails of this service: a folder of templates, compiled once, rendered to what SMTP sends.

    layout.html                               around every HTML body; holds the styles
    <kind>/<language>/subject.txt             one line
    <kind>/<language>/text.txt                the plain text
    <kind>/<language>/body.html               what stands in the layout's {{ content }}

The kinds are fixed (KINDS) and each has at least the language `en`; any other BCP 47 tag may stand
beside it. Templates are Jinja2, in a sandbox, and see `product`, `name` ("" when there is none fit
to show), `locale` and `direction` (ltr or rtl); those that carry a link also `link` and
`expires_in` ("in 30 minutes"). Styles are inlined when the folder is loaded, and every template is
rendered once on samples then, so that a mistake shows at the start and not in somebody's mailbox.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from babel.core import Locale, UnknownLocaleError
from css_inline import CSSInliner, InlineError
from jinja2 import StrictUndefined, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from service.mail.mime import Envelope, InvalidHeader, Mailbox, encode
from service.mail.skeleton import MailTemplate
from service.mail.wording import choose_language, harmless_name, word_expiry

Kind = Literal["verification", "reminder", "welcome", "account_exists"]

KINDS: tuple[Kind, ...] = get_args(Kind)
KINDS_WITH_LINK: frozenset[Kind] = frozenset(("verification", "reminder"))
DEFAULT_LANGUAGE = "en"
SHIPPED_TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE_BYTES_MAX = 65_536
LINK_CHARACTERS_MAX = 2_048

_LINK = re.compile(r"https?://[^\s<>\"\x00-\x1f\x7f]+")
_CONTENT = "{{ content }}"
_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_MARK = re.compile("\ue000([0-9]+)\ue001")
_MARK_IN_ELEMENT = re.compile('<[a-z](?:[^<>"\ue000]|"[^"]*")*\ue000')
_ELEMENT_OR_MARK = re.compile("<([a-z][a-z0-9]*)|\ue000([0-9]+)\ue001")
_IMPLIED = frozenset(("html", "head", "body", "tbody", "colgroup", "style"))

_OPTIONS: dict[str, Any] = {
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
}
_PLAIN = ImmutableSandboxedEnvironment(autoescape=False, **_OPTIONS)
_HTML = ImmutableSandboxedEnvironment(autoescape=True, **_OPTIONS)
# Styles that a link in the layout points to would be fetched when the service starts.
_INLINER = CSSInliner(load_remote_stylesheets=False, keep_at_rules=True)


class BadTemplates(Exception):
    """The folder's templates cannot be used; `problems` has all of them, each with its file."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """What a mail tells its reader. `name` may be whatever a visitor typed: it is made harmless."""

    product: str
    name: str | None = None
    link: str | None = None
    expires_in_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class _Letter:
    """The three compiled templates of one kind in one language."""

    kind: Kind
    locale: Locale
    subject: MailTemplate
    text: MailTemplate
    html: MailTemplate
    language: Mapping[str, str]
    """What templates see of the locale. Asking babel anew takes as long as filling them in."""

    def render(self, variables: Variables, envelope: Envelope) -> bytes:
        values = self._values(variables)
        shared = (values["product"], values.get("expires_in"), bool(values["name"]))
        return encode(
            envelope,
            self.subject.render(values, shared).strip(),
            self.text.render(values, shared),
            self.html.render(values, shared),
        )

    def _values(self, variables: Variables) -> dict[str, str]:
        values = {
            "product": variables.product,
            "name": harmless_name(variables.name or ""),
            **self.language,
        }
        if self.kind in KINDS_WITH_LINK:
            if variables.expires_in_seconds is None:
                raise ValueError(f"expires_in_seconds: a {self.kind} mail needs it")
            values["link"] = _checked_link(variables.link)
            values["expires_in"] = word_expiry(variables.expires_in_seconds, self.locale)
        return values


class Templates:
    """Every mail in every language, ready to be filled in. Made by `Templates.load`."""

    def __init__(self, letters: Mapping[Kind, Mapping[str, _Letter]]) -> None:
        self._letters = letters

    @classmethod
    def load(cls, folder: Path = SHIPPED_TEMPLATES) -> "Templates":
        """Return the templates of a folder, compiled and tried out.

        Raise BadTemplates with all that is wrong: files that are missing, too large or no UTF-8,
        syntax errors, unknown variables, a subject of several lines, a link that is not shown.
        """
        loader = _Loader(folder)
        letters = {kind: loader.letters(kind) for kind in KINDS}
        if loader.problems:
            raise BadTemplates(loader.problems)
        return cls(letters)

    def render(
        self, kind: Kind, locale: str | None, variables: Variables, envelope: Envelope
    ) -> bytes:
        """Return the mail's bytes in the language that comes closest to `locale` (BCP 47).

        Equal arguments give equal bytes. Raise ValueError when the kind needs a link or an expiry
        that is not given, InvalidHeader (a ValueError) when the envelope could break the headers.
        """
        letters = self._letters[kind]
        return letters[choose_language(locale, letters, DEFAULT_LANGUAGE)].render(
            variables, envelope
        )


class _Loader:
    """Reads and compiles a folder, and notes every problem instead of stopping at the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problems: list[str] = []
        self._layout = self._read("layout.html")
        if self._layout is not None and self._layout.count(_CONTENT) != 1:
            self._note("layout.html", f"must contain {_CONTENT} exactly once")

    def letters(self, kind: Kind) -> dict[str, _Letter]:
        """Return the compiled letters of a kind by language tag."""
        folder = self._folder / kind
        tags = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        if DEFAULT_LANGUAGE not in tags:
            self._note(kind, f"has no folder {DEFAULT_LANGUAGE}, the default language")
        found = {tag: self._letter(kind, tag) for tag in tags if (folder / tag).is_dir()}
        return {tag: letter for tag, letter in found.items() if letter is not None}

    def _letter(self, kind: Kind, tag: str) -> _Letter | None:
        place = f"{kind}/{tag}"
        try:
            locale = Locale.parse(tag, sep="-")
        except (ValueError, UnknownLocaleError) as error:
            self._note(place, f"is not named after a known language: {error}")
            return None
        subject = self._compile(f"{place}/subject.txt", _PLAIN)
        text = self._compile(f"{place}/text.txt", _PLAIN)
        html = self._compile(f"{place}/body.html", _HTML)
        if subject is None or text is None or html is None:
            return None
        language = {
            "locale": str(locale).replace("_", "-"),
            "direction": locale.text_direction,
        }
        letter = _Letter(kind, locale, subject, text, html, language)
        self._try_out(place, letter)
        return letter

    def _compile(
        self, path: str, environment: ImmutableSandboxedEnvironment
    ) -> MailTemplate | None:
        source = self._read(path)
        if source is None:
            return None
        try:
            # Parsed by itself first, so that the line is the file's own and not the layout's.
            environment.parse(source)
            if environment is _HTML:
                if self._layout is None:
                    return None
                source = _inline_styles(self._layout.replace(_CONTENT, source))
            return MailTemplate(environment, source)
        except TemplateSyntaxError as error:
            self._note(f"{path}:{error.lineno}", error.message or "cannot be parsed")
        except (InlineError, ValueError) as error:
            self._note(path, f"cannot be put into the layout: {error}")
        return None

    def _try_out(self, place: str, letter: _Letter) -> None:
        """Render the letter with and without a name; note what goes wrong and what is missing."""
        for name in ("", "Ada"):
            variables = Variables(product="P", name=name, link=_SAMPLE_LINK, expires_in_seconds=60)
            try:
                letter.render(variables, _SAMPLE_ENVELOPE)
                bodies = [
                    (path, template.render(letter._values(variables), name))
                    for path, template in (("text.txt", letter.text), ("body.html", letter.html))
                ]
            except InvalidHeader as error:
                self._note(f"{place}/subject.txt", str(error))
                return
            except Exception as error:  # A template's expressions may raise anything at all.
                self._note(place, f"cannot be rendered: {error}")
                return
        if letter.kind in KINDS_WITH_LINK:
            for path, body in bodies:
                if _SAMPLE_LINK not in body:
                    self._note(f"{place}/{path}", "does not show {{ link }}")

    def _read(self, path: str) -> str | None:
        try:
            raw = (self._folder / path).read_bytes()
            if len(raw) > TEMPLATE_BYTES_MAX:
                raise ValueError(f"has {len(raw)} bytes, at most {TEMPLATE_BYTES_MAX} are allowed")
            return raw.decode()
        except OSError as error:
            self._note(path, f"cannot be read: {error.strerror}")
        except ValueError as error:
            self._note(path, str(error))
        return None

    def _note(self, place: str, problem: str) -> None:
        self.problems.append(f"{place}: {problem}")


_SAMPLE_LINK = "https://sample.example/verify#token=sample"
_SAMPLE_ENVELOPE = Envelope(
    message_id="<sample@sample.example>",
    date=datetime(2000, 1, 1, tzinfo=UTC),
    sender=Mailbox("P", "sender@sample.example"),
    recipient="recipient@sample.example",
)


def _checked_link(link: str | None) -> str:
    # The link is a secret: the message must not repeat it.
    if link is None or len(link) > LINK_CHARACTERS_MAX or _LINK.fullmatch(link) is None:
        raise ValueError(
            f"link: must be an http(s) URL of at most {LINK_CHARACTERS_MAX} characters"
        )
    return link


def _inline_styles(source: str) -> str:
    """Return an HTML template with its styles moved into the elements.

    The inliner parses and rewrites HTML, so Jinja's tags wait outside while it works: a mark holds
    the place of each. Raise ValueError when a tag stands where HTML has no text, as the parser
    moves such marks about.
    """
    tags = _TAG.findall(source)
    numbers = iter(range(len(tags)))
    marked = _TAG.sub(lambda _: f"\ue000{next(numbers)}\ue001", source)
    inlined = _INLINER.inline(marked)
    if _skeleton(marked) != _skeleton(inlined):
        raise ValueError("a {% tag %} stands between table cells, or in a style")
    if _MARK_IN_ELEMENT.search(inlined):
        raise ValueError("a {% tag %} stands inside an element's tag, but not in a quoted value")
    return _MARK.sub(lambda mark: tags[int(mark[1])], inlined)


def _skeleton(markup: str) -> list[tuple[str, str]]:
    """Return elements and marks in their order, without the elements that HTML itself adds."""
    return [found for found in _ELEMENT_OR_MARK.findall(markup.lower()) if found[0] not in _IMPLIED]
