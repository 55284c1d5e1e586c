"""HTML elements and tables as text. Whatever is not `Html` already is escaped."""

import html
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

VOID = ("meta", "rect", "line", "circle")
"""Elements without content, which are written without an end tag or, in SVG, as one tag."""
JOINERS = "\u200c\u200d"
"""Invisible characters that scripts such as Persian, and emoji, are written with."""


class Html(str):
    """Text that is HTML already."""


@dataclass(frozen=True)
class Number:
    """A number of a table: as it is shown, and the value that its column is sorted by; None if there is none."""

    shown: str
    value: float | None


def number(value: float | None, digits: int = 1, suffix: str = "") -> Number:
    """Return a number of a table, rounded for the eye to ``digits`` decimals, or a dash for None."""
    return Number("-", None) if value is None else Number(f"{value:,.{digits}f}{suffix}", value)


def escaped(value: object) -> Html:
    """Return a value as HTML: escaped, unless it is HTML already.

    Characters that control a terminal or the direction of text, or that are not allowed in HTML, are written as Python's escapes.
    """
    if isinstance(value, Html):
        return value
    shown = "".join(c if c in JOINERS or not unicodedata.category(c).startswith("C") else ascii(c)[1:-1] for c in str(value))
    return Html(html.escape(shown))


def joined(parts: Iterable[object]) -> Html:
    """Return the parts one after the other, each escaped unless it is HTML already."""
    return Html("".join(map(escaped, parts)))


def element(tag: str, *content: object, **attributes: object) -> Html:
    """Return an element. In the names of attributes ``_`` stands for ``-``, and is dropped at the end; one whose value is None is left out."""
    given = joined(Html(f' {name.rstrip("_").replace("_", "-")}="{escaped(value)}"') for name, value in attributes.items() if value is not None)
    if tag in VOID:
        return Html(f"<{tag}{given}{'' if tag == 'meta' else '/'}>")
    return Html(f"<{tag}{given}>{joined(content)}</{tag}>")


def paragraph(*content: object, class_: str | None = None) -> Html:
    """Return a paragraph."""
    return element("p", *content, class_=class_)


def table(caption: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Html:
    """Return a table that the page's script makes sortable; the first cell of a row is its heading.

    A `Number` is aligned to the right and sorted by its value; other cells are texts. The table scrolls by itself if it is wider than the page.
    """
    numeric = [any(isinstance(row[column], Number) for row in rows) for column in range(len(headings))]
    head = element("tr", *(element("th", text, scope="col", class_="n" if right else None) for text, right in zip(headings, numeric, strict=True)))
    body = joined(element("tr", _cell("th", row[0], scope="row"), *(_cell("td", value) for value in row[1:])) for row in rows)
    whole = element("table", table_caption(caption), element("thead", head), element("tbody", body), class_="sortable")
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def table_caption(text: str) -> Html:
    """Return the caption of a table, which stays in view when the table is scrolled."""
    return element("caption", element("span", text))


def _cell(tag: str, value: object, **attributes: object) -> Html:
    if not isinstance(value, Number):
        return element(tag, value, **attributes)
    return element(tag, value.shown, class_="n", data_value=None if value.value is None else f"{value.value:.6g}", **attributes)


def figure(finding: str, picture: Html, explanation: str, *, class_: str) -> Html:
    """Return a chart below the finding that it shows, with how to read it beneath."""
    heading = element("p", finding, class_="finding")
    return element("figure", heading, element("div", picture, class_="plot"), element("figcaption", explanation), class_=class_)
