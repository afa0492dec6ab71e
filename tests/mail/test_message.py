"""Templates: what ships is complete, what a folder lacks is told, what is rendered is safe."""

import email
import email.policy
import html
import re
import shutil
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

import pytest

from service.mail import SHIPPED_TEMPLATES, BadTemplates, Envelope, Mailbox, Templates, Variables
from service.mail.message import KINDS, KINDS_WITH_LINK, Kind

LINK = "https://service.example/verify?id=0189&a=b#token=" + "t" * 76
ENVELOPE = Envelope(
    message_id="<0189.7@service.example>",
    date=datetime(2026, 1, 2, tzinfo=UTC),
    sender=Mailbox("Countersign", "no-reply@service.example"),
    recipient="ada@example.org",
)
VARIABLES = Variables(product="Countersign", name="Ada", link=LINK, expires_in_seconds=1800)
TEMPLATES = Templates.load()


def render(
    kind: Kind, locale: str | None = None, variables: Variables = VARIABLES
) -> tuple[str, str, str]:
    """Return subject, text and HTML of a rendered mail as its reader gets them."""
    content = TEMPLATES.render(kind, locale, variables, ENVELOPE)
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert message.defects == []
    text, rich = (part.get_content() for part in message.iter_parts())
    return message["Subject"], text, rich


def visible(rich: str) -> str:
    """Return the words of an HTML body."""
    return " ".join(html.unescape(re.sub(r"<title>.*?</title>|<[^>]*>", " ", rich)).split())


def test_verification_mail_says_who_why_what_and_how_long() -> None:
    subject, text, rich = render("verification")
    assert subject == "Confirm your email address for Countersign"
    assert text == (
        "Hello Ada,\r\n"
        "\r\n"
        "someone, hopefully you, signed up for Countersign with this email\r\n"
        "address. To confirm that it is yours, open this page and press the button:\r\n"
        "\r\n"
        f"{LINK}\r\n"
        "\r\n"
        "The link expires in 30 minutes.\r\n"
        "\r\n"
        "Was it not you? Then simply ignore this mail: without confirmation\r\n"
        "nothing is kept.\r\n"
    )
    assert visible(rich) == (
        "Hello Ada, someone, hopefully you, signed up for Countersign with this email address."
        " Confirm this address The link expires in 30 minutes."
        f" If the button does nothing, open this page: {LINK}"
        " Was it not you? Then simply ignore this mail: without confirmation nothing is kept."
    )
    assert f'href="{html.escape(LINK)}"' in rich


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("locale", "word"), [("en", "Hello"), ("de", "Guten Tag"), ("fr", "Bonjour"), ("es", "Hola")]
)
def test_every_kind_is_there_in_every_language(kind: Kind, locale: str, word: str) -> None:
    _, text, rich = render(kind, locale)
    assert f'<html lang="{locale}" dir="ltr">' in rich
    for body in (text, visible(rich)):
        assert word in body
        assert "Countersign" in body
        assert (LINK in body) == (kind in KINDS_WITH_LINK)


@pytest.mark.parametrize(
    ("locale", "subject"),
    [
        ("de-CH", "Willkommen bei Countersign"),
        ("FR", "Bienvenue chez Countersign"),
        ("nl", "Welcome to Countersign"),
        (None, "Welcome to Countersign"),
    ],
)
def test_mail_is_in_the_closest_language(locale: str | None, subject: str) -> None:
    assert render("welcome", locale)[0] == subject


@pytest.mark.parametrize("name", [None, "", "evil.com"])
def test_greeting_without_a_name_fit_to_show_names_nobody(name: str | None) -> None:
    _, text, rich = render("welcome", variables=Variables(product="P", name=name))
    assert text.startswith("Hello,\r\n")
    assert visible(rich).startswith("Hello, ")


def test_name_is_text_and_never_markup() -> None:
    name = "<b onclick=x>\"'&{{ 7*7 }}"
    _, text, rich = render("welcome", variables=Variables(product="P", name=name))
    assert text.startswith(f"Hello {name},\r\n")
    assert "<b onclick" not in rich
    assert visible(rich).startswith(f"Hello {name},")


def test_mail_to_an_account_s_owner_repeats_nothing_a_stranger_typed() -> None:
    mails = {
        TEMPLATES.render("account_exists", "en", Variables(product="P", name=name), ENVELOPE)
        for name in (None, "Ada", "Eve")
    }
    assert len(mails) == 1


def test_styles_are_inlined() -> None:
    _, _, rich = render("verification")
    assert "<style" not in rich
    assert 'style="margin: 0 0 16px;"' in rich


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (Variables(product="P", expires_in_seconds=60), "link: must be an http"),
        (Variables(product="P", link="javascript:x", expires_in_seconds=60), "link: must be an"),
        (Variables(product="P", link=LINK + "\n", expires_in_seconds=60), "link: must be an http"),
        (Variables(product="P", link=LINK + "x" * 2000, expires_in_seconds=60), "at most 2048"),
        (Variables(product="P", link=LINK), "expires_in_seconds: a verification mail needs it"),
        (Variables(product="P\nBcc: x", link=LINK, expires_in_seconds=60), "Subject: "),
    ],
)
def test_variables_that_make_no_mail_are_an_error(variables: Variables, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        TEMPLATES.render("verification", "en", variables, ENVELOPE)
    assert "ttt" not in str(caught.value)


# A folder of one's own


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED_TEMPLATES, tmp_path / "templates"))


def problems(folder: Path) -> list[str]:
    with pytest.raises(BadTemplates) as caught:
        Templates.load(folder)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def test_language_added_to_the_folder_is_used(folder: Path) -> None:
    shutil.copytree(folder / "welcome/en", folder / "welcome/ar")
    (folder / "welcome/ar/subject.txt").write_text("مرحبا\n", encoding="utf-8")
    content = Templates.load(folder).render("welcome", "ar-EG", VARIABLES, ENVELOPE)
    assert "=?utf-8?" in content.decode()
    assert b'<html lang="ar" dir="rtl">' in content


def test_all_problems_of_a_folder_are_told_at_once(folder: Path) -> None:
    (folder / "verification/de/text.txt").write_text("one\n{% if %}\n")
    (folder / "verification/fr/subject.txt").unlink()
    (folder / "verification/es/body.html").write_bytes(b"\xff")
    (folder / "reminder/de/text.txt").write_text("no link")
    (folder / "reminder/fr/subject.txt").write_text("two\nlines")
    (folder / "welcome/de/text.txt").write_text("{{ link }}")
    (folder / "welcome/fr/text.txt").write_text("x" * 65_537)
    (folder / "welcome/es").rename(folder / "welcome/spanish")
    shutil.rmtree(folder / "account_exists/en")
    assert problems(folder) == [
        "verification/de/text.txt:2: Expected an expression, got 'end of statement block'",
        "verification/es/body.html: 'utf-8' codec can't decode byte 0xff in position 0:"
        " invalid start byte",
        "verification/fr/subject.txt: cannot be read: No such file or directory",
        "reminder/de/text.txt: does not show {{ link }}",
        "reminder/fr/subject.txt: Subject: 'two\\nlines' contains a control character or line end",
        "welcome/de: cannot be rendered: 'link' is undefined",
        "welcome/fr/text.txt: has 65537 bytes, at most 65536 are allowed",
        "welcome/spanish: is not named after a known language: unknown locale 'spanish'",
        "account_exists: has no folder en, the default language",
    ]


def test_empty_folder_lacks_everything(tmp_path: Path) -> None:
    assert problems(tmp_path) == [
        "layout.html: cannot be read: No such file or directory",
        *(f"{kind}: has no folder en, the default language" for kind in KINDS),
    ]


def test_layout_must_have_one_place_for_the_content(folder: Path) -> None:
    (folder / "layout.html").write_text("<html><body></body></html>")
    assert problems(folder)[0] == "layout.html: must contain {{ content }} exactly once"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            "<table>{% if name %}<tr><td>x</td></tr>{% endif %}</table>",
            "a {% tag %} stands between table cells, or in a style",
        ),
        (
            "<p {% if name %}class=quiet{% endif %}>x</p>",
            "a {% tag %} stands inside an element's tag, but not in a quoted value",
        ),
    ],
)
def test_tag_that_the_style_inliner_would_move_is_refused(
    folder: Path, body: str, problem: str
) -> None:
    (folder / "welcome/en/body.html").write_text(body)
    assert problems(folder) == [f"welcome/en/body.html: cannot be put into the layout: {problem}"]


def test_html_template_s_expressions_survive_the_style_inliner(folder: Path) -> None:
    body = "<p class=\"{{ 'a' if name > '' and 1 < 2 else 'b' }}\">{{ name ~ \"&\" }}</p>{# note #}"
    (folder / "welcome/en/body.html").write_text(body)
    content = Templates.load(folder).render("welcome", "en", VARIABLES, ENVELOPE)
    assert b'<p class="a" style="margin: 0 0 16px;">Ada&amp;</p>' in content


@pytest.mark.parametrize(
    "source",
    ["{{ name.__class__.__mro__ }}", "{{ 1 // 0 }}", "{{ unknown }}", "{{ name.nothing() }}"],
)
def test_template_that_fails_or_leaves_its_sandbox_is_refused(folder: Path, source: str) -> None:
    (folder / "welcome/en/text.txt").write_text(source)
    (problem,) = problems(folder)
    assert problem.startswith("welcome/en: cannot be rendered: ")


def test_equal_arguments_give_equal_bytes() -> None:
    again = Templates.load()
    for kind in KINDS:
        rendered = TEMPLATES.render(kind, "fr", VARIABLES, ENVELOPE)
        assert again.render(kind, "fr", VARIABLES, ENVELOPE) == rendered
