"""Reads cards back, strictly: what is not allowed or not closed is an error."""

from __future__ import annotations

import re
from html.parser import HTMLParser

#: Kept by JupyterLab in an untrusted notebook, and by code hosts (which drop ``style``).
TAGS = {
    "caption", "code", "details", "div", "p", "span", "strong", "summary", "table", "tbody", "td",
    "th", "thead", "tr",
}  # fmt: skip
INLINE = {"code", "span", "strong"}
ATTRIBUTES = {"align": {"left", "right"}, "scope": {"row", "col"}, "style": None}
STYLES = {
    "border-collapse": r"collapse",
    "color": r"#[0-9a-f]{6}",
    "font-family": r"monospace",
    "font-weight": r"normal|600",
    "margin": r"(-?\d+(px)? ?){1,4}",
    "padding": r"(\d+(px)? ?){1,4}",
    "padding-left": r"\d+px",
    "text-align": r"left|right",
    "white-space": r"pre",
}


class StrictReader(HTMLParser):
    """Collects the text, and refuses anything outside the lists above."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.colours: set[str] = set()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self._picture(dict(attrs))
            return
        assert tag in TAGS, f"<{tag}> is not allowed"
        self.open.append(tag)
        self.seen.append(tag)
        self._apart(tag)
        for name, value in attrs:
            assert name in ATTRIBUTES, f"{name} on <{tag}> is not allowed"
            allowed = ATTRIBUTES[name]
            assert value is not None
            assert allowed is None or value in allowed
            if name == "style":
                self._check_style(value)

    def _picture(self, attributes: dict[str, str | None]) -> None:
        """Inside the card, with words for those who do not see it."""
        assert set(attributes) == {"src", "alt", "width"}
        assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", attributes["src"] or "")
        assert attributes["alt"]
        self.pieces.append(f" {attributes['alt']} ")

    def _check_style(self, style: str) -> None:
        for declaration in style.split(";"):
            name, _, value = declaration.partition(":")
            assert name in STYLES, f"style {name} is not allowed"
            assert re.fullmatch(STYLES[name], value), f"{name}:{value}"
            if name == "color":
                self.colours.add(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()
        self._apart(tag)

    def _apart(self, tag: str) -> None:
        if tag not in INLINE:
            self.pieces.append(" ")

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError("a comment")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError("a declaration")

    def handle_pi(self, data: str) -> None:
        raise AssertionError("a processing instruction")


def read(html: str) -> StrictReader:
    reader = StrictReader()
    reader.feed(html)
    reader.close()
    assert not reader.open, f"not closed: {reader.open}"
    return reader


def flat(text: str) -> str:
    """Words with single spaces."""
    return " ".join(text.replace("\u00a0", " ").split())


def words_of(html: str) -> str:
    """What a reader of the HTML reads."""
    return flat("".join(read(html).pieces))
