"""Read the text of web pages: what is read, not what surrounds it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from dupmae.corpus.formats.pages import Layout, Page
from dupmae.corpus.lines import read_bytes
from dupmae.errors import DupmaeError

# fmt: off
_UNREAD = {
    "script", "style", "template", "noscript", "svg", "canvas", "iframe", "object", "embed", "audio", "video", "head",
    "button", "select", "input", "textarea", "datalist", "map", "area", "frameset",
}
"""Elements that hold nothing to read."""
_AROUND = {"nav": "navigation", "header": "banner", "footer": "contentinfo", "aside": "complementary"}
"""Elements around a page's main text, and the roles that mean the same."""
_SURROUNDINGS, _NAVIGATION = set(_AROUND), {"nav"}
_BLOCKS = {
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "pre", "blockquote", "figure", "section",
    "article", "hr", "header", "footer", "main", "aside", "details", "fieldset", "form", "nav",
}
_LINES = {
    "div", "li", "tr", "dt", "dd", "caption", "figcaption", "summary", "address", "br", "option", "legend", "center",
}
# fmt: on
_LONG_TAG, _ATTRIBUTES = re.compile(r"<[A-Za-z][^<>]{10000,}"), 2000
"""A tag of more characters has its attributes counted: the parser's time grows with the square of their number."""
_BEGINNING = 4096
"""Bytes of a page in which it may say its encoding."""


def read(path: Path) -> Page:
    """Read a web page's title, text and headings."""
    return page_of(decoded(read_bytes(path)), str(path))


def decoded(content: bytes) -> str:
    """Decode a page: by its byte-order mark, else as UTF-8 if it is, else as it says itself, else as Windows-1252;
    bytes that mean nothing there become U+FFFD, as in browsers.
    """
    for mark, encoding in ((codecs.BOM_UTF8, "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    said = re.search(rb"(?:charset|encoding)\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]+)", content[:_BEGINNING])
    name = said[1].decode() if said else "cp1252"
    if not name.lower().startswith("iso-2022"):  # whose bytes are all those of ASCII
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            pass
    try:
        codec = codecs.lookup(name)
        name = "cp1252" if codec.name in ("iso8859-1", "ascii", "utf-8") or not _is_text(codec) else codec.name
    except LookupError:
        name = "cp1252"
    return content.decode(name, "replace")


def _is_text(codec: codecs.CodecInfo) -> bool:
    """Tell an encoding of text from Python's codecs of other things, such as `hex` and `zip`."""
    return bool(getattr(codec, "_is_text_encoding", True))


def page_of(markup: str, source: str) -> Page:
    """Lay out the readable text of a page.

    If it names its main part (`main`), that is read, and of that all; else its body without navigation, header, footer
    and asides. Never read are scripts, styles, forms' fields and hidden parts.

    Args:
        markup: HTML or XHTML.
        source: What it is of, for errors.

    Raises:
        DupmaeError: Elements are nested deeper than 2,048.
    """
    from lxml import etree

    for tag in _LONG_TAG.finditer(markup):
        if len(re.findall(r"[^\s=/]+", re.sub(r"\"[^\"]*\"|'[^']*'", " ", tag[0]))) > _ATTRIBUTES:
            raise DupmaeError(f"{source}: an element has more than {_ATTRIBUTES:,} attributes, as in no page.")
    # HTML knows no entities of its own, and nothing outside of the text is looked for.
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True, no_network=True)
    content = re.sub("[\x00\ud800-\udfff]", "\ufffd", markup).encode()
    root = etree.fromstring(content, parser) if content.strip() else None
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise DupmaeError(f"{source}: elements are nested deeper than 2,048, as in no page made to be read.")
    if root is None:
        return Page("", "")
    body = root.find("body")
    whole = [root if body is None else body]
    mains = [
        part for part in root.iter("main", "{*}main") if not any(above.tag == "main" for above in part.iterancestors())
    ]
    mains = mains or root.xpath("//*[@role='main']")[:1]
    layout = _laid_out(mains, _NAVIGATION) if mains else _laid_out(whole, _SURROUNDINGS)
    if mains and len(layout.page("").text) < 1000:  # it may be an empty frame that a script was to fill
        outside = _laid_out(whole, _SURROUNDINGS)
        layout = outside if len(outside.page("").text) > 4 * len(layout.page("").text) else layout
    if not layout.page("").text:
        layout = _laid_out(whole, set())
    title = " ".join("".join(root.xpath("string((/html/head/title | /html/body/title)[1])")).split())
    first = min(layout.headings, key=lambda heading: heading.level, default=None)
    return layout.page(title or (first.text if first else ""), _fields(root))


def _laid_out(roots: Iterable[Any], without: Collection[str]) -> Layout:
    """Lay out the text of elements, without some of those around it."""
    from lxml import etree

    layout = Layout()
    for root in roots:
        layout.block()
        walk = etree.iterwalk(root, events=("start", "end"))
        for event, element in walk:
            tag = element.tag
            if event == "start":
                if element is not root and _is_unread(element, without):
                    walk.skip_subtree()
                elif tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
                    layout.heading(int(tag[1]), _text_of(element))
                    walk.skip_subtree()
                elif tag == "pre":
                    layout.lines(_text_of(element))
                    walk.skip_subtree()
                else:
                    _begin(layout, element)
                    layout.words(element.text or "")
                continue
            _separate(layout, element)
            if element is not root and element.tail:
                layout.words(element.tail)
    return layout


def _begin(layout: Layout, element: Any) -> None:
    """Begin an element: a block, a line, an item, or a cell of a table's row."""
    tag = element.tag
    if tag in ("td", "th"):
        if element.getprevious() is not None:
            layout.words(" | ")
    elif tag == "li":
        layout.item("- ")
    else:
        _separate(layout, element)


def _separate(layout: Layout, element: Any) -> None:
    """Set an element that begins or ends apart from what stands before or behind it."""
    tag, parent = element.tag, element.getparent()
    if tag in ("ul", "ol") and parent is not None and parent.tag == "li":
        layout.line()
    elif tag in _BLOCKS:
        layout.block()
    elif tag in _LINES:
        layout.line()


def _is_unread(element: Any, without: Collection[str]) -> bool:
    """Tell whether an element is none of the text."""
    tag, role = element.tag, element.get("role")
    if tag in _UNREAD or element.get("hidden") is not None:
        return True
    if tag == "a" and "headerlink" in (element.get("class") or ""):
        return True
    kind = next((name for name, meant in _AROUND.items() if tag == name or role == meant), None)
    if kind not in without or kind == "nav":
        return kind in without
    if next(element.iterancestors("article"), None) is not None:
        return False
    return kind != "header" or element.find(".//h1") is None


def _text_of(element: Any) -> str:
    """Read all text in an element, line breaks included, but that of what is never read."""
    from lxml import etree

    parts = [element.text or ""]
    walk = etree.iterwalk(element, events=("start", "end"))
    for event, part in walk:
        if part is element:
            continue
        if event == "end":
            parts.append(part.tail or "")
        elif _is_unread(part, _NAVIGATION):
            walk.skip_subtree()
        else:
            parts.append("\n" if part.tag == "br" else part.text or "")
    return "".join(parts)


def _fields(root: Any) -> dict[str, str]:
    """Collect what a page says of itself: its language, and what its `meta` elements name."""
    fields = {"lang": root.get("lang") or root.get("{http://www.w3.org/XML/1998/namespace}lang")}
    for meta in root.iter("meta"):
        if (name := meta.get("name") or meta.get("property")) and meta.get("content"):
            fields.setdefault(name, meta.get("content"))
    return {name: value for name, value in fields.items() if value}
