"""What each kind of file reads as: its text, its title, its headings and where they stand."""

from __future__ import annotations

import base64
import sys
import zipfile
import zlib
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from dupmae.corpus import Passage, read_passages
from dupmae.corpus.passage import Document
from dupmae.errors import DupmaeError


def read_one(path: Path, content: str | bytes, *metadata: str) -> Document:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return one_of(path, *metadata)


def one_of(path: Path, *metadata: str) -> Document:
    (document,) = read_passages(path, metadata_fields=metadata)
    assert isinstance(document, Document)
    assert document.id == path.name
    for heading in document.headings:
        assert document.text[heading.start :].split("\n")[0] == heading.text
    return document


def headings(document: Document) -> list[tuple[int, str]]:
    return [(heading.level, heading.text) for heading in document.headings]


MARKDOWN = """\
---
title: "On lamps"
author: Ann
year: 1927
tags: [light, oil]
---
<!-- A note
to self. -->
# The *first* `lamp`

It burns [oil](http://oil), ![no](x.png)and **light**
comes &amp; goes.<br>Again.

* one
  1. deep
* two

Second lamp
-----------

```python
# no heading
x  = 1
```

| k | v |
|---|---|
| a | b |
"""


def test_markdown_is_read_without_its_marks(tmp_path: Path) -> None:
    document = read_one(tmp_path / "a.md", MARKDOWN, "author", "year", "tags", "none")

    assert document.text == (
        "The first lamp\n\nIt burns oil, and light comes & goes.\nAgain.\n\n- one\n- deep\n- two\n\nSecond lamp\n\n"
        "# no heading\nx  = 1\n\nk | v\na | b"
    )
    assert (document.title, headings(document)) == ("On lamps", [(1, "The first lamp"), (2, "Second lamp")])
    assert document.metadata == {"author": "Ann", "year": 1927, "tags": "light, oil"}


@pytest.mark.parametrize(
    ("content", "title", "text"),
    [
        ("# A\nb", "A", "A\n\nb"),
        ("a\n\n# B\n", "", "a\n\nB"),
        ("---\na: [\n\n---\n\nx", "", "a: [\n\nx"),
        ("---\n- a list\n---\nx", "", "- a list\n\nx"),
        ("+ x\n<script>no</script>\n", "", "- x"),
    ],
)
def test_front_matter_is_taken_off_only_where_there_is_some(
    tmp_path: Path, content: str, title: str, text: str
) -> None:
    document = read_one(tmp_path / "a.markdown", content)

    assert (document.title, document.text) == (title, text)


PAGE = """\
<!doctype html><html lang="en"><head><title>Lamps
 &mdash; a page</title><meta name="author" content="Ann"><style>p {{}}</style><script>var x</script></head>
<body><header><a href="/">Site</a><h2>Motto</h2></header><nav>Menu</nav>{around}<footer>Imprint</footer></body></html>
"""
TEXT = """\
<h1>Lamps<a class="headerlink">¶</a></h1><p>They <b>bu</b>rn oil<br>and <i>light</i>.<!-- no -->
<template>no</template></p><ul><li>one<li><p>two</p></ul><pre>x  = 1
  <span>y</span></pre><table><tr><th>k<th>v<tr><td>a<td>b</table><div hidden>no</div><aside>By the way</aside>
"""
READ = "Lamps\n\nThey burn oil\nand light.\n\n- one\n- two\n\nx  = 1\n  y\n\nk | v\na | b"


@pytest.mark.parametrize(
    "around", ["{}", "<div id=x>{}</div>", "<div>a sidebar</div><main>{}</main>", "<div role=main>{}</div>"]
)
@pytest.mark.parametrize("ending", ["html", "htm", "xhtml"])
def test_of_a_page_its_main_text_is_read(tmp_path: Path, around: str, ending: str) -> None:
    document = read_one(tmp_path / f"a.{ending}", PAGE.format(around=around.format(TEXT)), "lang", "author")

    inside = "main" in around
    assert document.text == (f"{READ}\n\nBy the way" if inside else READ)
    assert (document.title, headings(document)) == ("Lamps — a page", [(1, "Lamps")])
    assert document.metadata == {"lang": "en", "author": "Ann"}


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<nav>all there is</nav>", "all there is"),
        (
            f"<main><p>Loading</p></main><div>{'the whole text. ' * 9}</div>",
            f"Loading\n\n{'the whole text. ' * 9}".strip(),
        ),
        ("<body><header><h1>Title</h1></header>x", "Title\n\nx"),
        ("<article><header>by Ann</header>x<footer>note</footer></article>", "by Ann\n\nx\n\nnote"),
        ("plain & simple < text", "plain & simple < text"),
        ("<p>a<p>b</div>c</p></p>d<unknown>e", "a\n\nbc\n\nde"),
    ],
)
def test_no_page_loses_its_text(tmp_path: Path, markup: str, text: str) -> None:
    assert read_one(tmp_path / "a.html", markup).text == text


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ("", "utf-8"),
        ("", "utf-8-sig"),
        ("", "utf-16"),
        ("", "cp1252"),
        ("<meta charset=iso-8859-1>", "cp1252"),
        ("<meta charset=utf-8>", "cp1252"),
        ("<meta http-equiv=content-type content='text/html; charset=shift_jis'>", "shift_jis"),
        ("<meta charset=iso-2022-jp>", "iso-2022-jp"),
        ("<meta charset=zip>", "utf-8"),
    ],
)
def test_a_page_is_decoded_as_browsers_do(tmp_path: Path, head: str, encoding: str) -> None:
    text = "大きさ" if "jis" in encoding or "jp" in encoding else "Größe € “x”"

    assert read_one(tmp_path / "a.html", f"<html><head>{head}</head><p>{text}".encode(encoding)).text == text


RST = """\
=======
 Lamps
=======

.. _target: http://x
.. comment
   on lines

They use :func:`~lamp.burn` of ``oil`` and `links <http://x>`_,
*light* and **heat**. See target_.

.. note:: By the way
   it burns::

      x = 1

.. code-block:: python
   :linenos:

   y = 2

.. image:: x.png
   :alt: no

Kinds
=====

:param oil: what burns

Small
~~~~~
- one

Others
======
==  ==
k   v
==  ==
"""


def test_restructured_text_is_read_with_its_sections(tmp_path: Path) -> None:
    document = read_one(tmp_path / "a.rst", RST)

    assert document.text == (
        "Lamps\n\nThey use lamp.burn of oil and links,\nlight and heat. See target.\n\nBy the way\n   it burns:\n\n"
        "      x = 1\n\n   y = 2\n\nKinds\n\n:param oil: what burns\n\nSmall\n\n- one\n\nOthers\n\nk   v"
    )
    assert document.title == "Lamps"
    assert headings(document) == [(1, "Lamps"), (2, "Kinds"), (3, "Small"), (2, "Others")]


def test_a_word_document_is_read_with_headings_lists_and_tables(tmp_path: Path) -> None:
    import docx

    file = docx.Document()
    file.add_heading("Lamps", 0)
    file.add_heading("Oil", 2)
    file.add_paragraph("It\tburns. ").add_run("Well.")
    file.add_paragraph("one", style="List Bullet")
    table = file.add_table(1, 2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "k", "v"
    file.core_properties.author = "Ann"
    file.save(str(tmp_path / "a.docx"))
    document = one_of(tmp_path / "a.docx", "author")

    assert document.text == "Lamps\n\nOil\n\nIt burns. Well.\n\n- one\nk | v"
    assert (document.title, headings(document)) == ("Lamps", [(1, "Lamps"), (2, "Oil")])
    assert document.metadata == {"author": "Ann"}


def write_book(path: Path, chapters: dict[str, str]) -> None:
    items = "".join(
        f'<item id="i{n}" href="{name}" media-type="application/xhtml+xml"/>' for n, name in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="i{n}"/>' for n in reversed(range(len(chapters))))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile '
            'full-path="text/book.opf"/></rootfiles></container>',
        )
        archive.writestr(
            "text/book.opf",
            '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
            f"<dc:title>On lamps</dc:title><dc:creator>Ann</dc:creator></metadata><manifest>{items}</manifest>"
            f"<spine>{spine}</spine></package>",
        )
        for name, markup in chapters.items():
            archive.writestr(f"text/{name.replace('%20', ' ')}", markup)


def test_a_book_is_read_in_the_order_of_its_spine(tmp_path: Path) -> None:
    chapter = (
        '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{}</body></html>'
    )
    second, first = chapter.format("<h1>Two</h1><p>é</p>"), chapter.format('<script src="x"/><h1>One</h1><p>x</p>')
    write_book(tmp_path / "a.epub", {"b%20b.xhtml": second, "a.xhtml": first, "cover.xhtml": chapter.format("<img/>")})
    document = one_of(tmp_path / "a.epub", "author")

    assert document.text == "One\n\nx\n\nTwo\n\né"
    assert (document.title, headings(document)) == ("On lamps", [(1, "One"), (1, "Two")])
    assert document.metadata == {"author": "Ann"}


def write_pdf(path: Path, text: str) -> None:
    figure = Figure()
    figure.text(0.1, 0.5, text)
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(path, metadata={"Title": "On lamps", "Author": "Ann", "CreationDate": None})


ENCRYPTED = (
    "c-oCp%Wf1g5WM><`m#sj_e&b>fg~#-Kv_)!7nFma%b?Xv<n>AkKgoeVfFHp-Kp3$cux!byuBvW#d$qmVyr35xt-gK#@)c1aF!@iY>k!_SDIP;A(Ag"
    "lBOfguoM(Z_7V?1%#f_wM$kN|JpE*%iQoQ`7!ity_p9^eCrM(p8!A?0V%OIO`~+M%BwaPsaK0`bpW2>0nQ9ZP767HM?+HpRicoE}?RazW-p=Y4;&E~"
    "ypvx3^q)zdx1T14H;t8h7<02-0*Qm=#uOW?Nu0>}zWZzO8PIu0(`ypi9!3$du7O+DJmqRw%DskTOe342>a^NU4%i1mSb=#K|Ot%E~4ujBAy@gU&>0v|"
    "*MgPMnrGXUd}v+IW?-@SIaCtqz=V>KSFsaHCm>fjL2#&1^ZH$C5H4pb&Xp(9&}W8J;oP-abdhKbW*<7^UVMQ~C^JOKmM~*rzhL^>+B2S}C}nrV4!SKY"
    "lgl3Fxo;Rhw6*iQv*v=d%hrg~S98)_F~MLvnQM|Dm)wUyq?YJyejt2Ysln)VU!-x1YYczS*E3qrSu`"
)
"""One blank page, for whose password nobody asks here; zlib and base 85."""


def test_a_pdf_file_is_read_and_one_that_cannot_be_says_why(tmp_path: Path) -> None:
    write_pdf(tmp_path / "a.pdf", "A lamp burns.")
    document = one_of(tmp_path / "a.pdf", "author", "date")

    assert (document.title, document.text, document.metadata) == ("On lamps", "A lamp burns.", {"author": "Ann"})
    write_pdf(tmp_path / "b.pdf", "")
    with pytest.raises(DupmaeError, match="holds no text: it holds images of pages"):
        one_of(tmp_path / "b.pdf")
    with pytest.raises(DupmaeError, match="is encrypted: write it out again without a password"):
        read_one(tmp_path / "c.pdf", zlib.decompress(base64.b85decode(ENCRYPTED)))


@pytest.mark.parametrize(("ending", "module"), [("pdf", "pypdfium2"), ("docx", "docx"), ("xlsx", "openpyxl")])
def test_what_takes_an_extra_says_how_it_is_installed(ending: str, module: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DupmaeError, match=r"not installed: pip install 'dupmae\[documents\]'"):
        read_one(tmp_path / f"a.{ending}", "x")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_has_quotes_and_any_usual_delimiter(tmp_path: Path, delimiter: str) -> None:
    rows = [
        ["url", "text", "id", "title"],
        ["u", '"He said ""hi"",;|\there\nand left"', "a", '""'],
        [],
        ["", "x", "b", "T"],
    ]
    (tmp_path / "x.csv").write_bytes("\ufeff".encode() + "\r\n".join(delimiter.join(row) for row in rows).encode())

    assert list(read_passages(tmp_path / "x.csv")) == [
        Passage("a", "", 'He said "hi",;|\there\nand left'),
        Passage("b", "T", "x"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,text\na,b\n", "line 1: two columns are called 'text'"),
        (
            "id,body\n1,a\n",
            "line 1: no column 'text' (the text); its columns are 'id', 'body': name the text's with --text_",
        ),
        (
            "text,n\na,1\nb\n",
            "line 3: 1 column where the heading has 2: put a cell that holds ',' or a line break in double",
        ),
        ('text,n\n"a,1\nb,2\n', "line 2: not valid CSV"),
        ("", "is empty"),
        ("text\n", "is empty"),
    ],
)
def test_bad_csv_is_refused_with_file_and_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(DupmaeError) as caught:
        list(read_passages(tmp_path / "x.csv"))
    assert str(tmp_path / "x.csv") in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        ('[{"_id": "a", "text": "x"},\n {"_id": "b", "text": "y"}]', ["a", "b"]),
        ('[{"text": "x"}, {"text": "y"}]', ["x.json#1", "x.json#2"]),
        ('{"a": {"text": "x"}, "b": {"text": "y"}}', ["a", "b"]),
        ('{"a": {"text": "x", "_id": "own"}}', ["own"]),
        ('{\n"title": "T", "text": "x"}', ["x.json"]),
        ('{"id": 7, "text": "x"}', ["7"]),
        ('{"text": "x"}\n\n{"text": "y"}\n', ["x.json#1", "x.json#3"]),
    ],
)
def test_json_holds_a_list_an_object_or_lines_of_records(tmp_path: Path, content: str, ids: list[str]) -> None:
    (tmp_path / "x.json").write_text(content)

    assert [passage.id for passage in read_passages(tmp_path / "x.json")] == ids


def test_a_workbook_is_read_by_its_first_sheet(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    for row in ([], ["_id", "text", "year"], [1, "x", 1927], [], ["b", "y", None]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")

    assert list(read_passages(tmp_path / "a.xlsx", metadata_fields=["year"])) == [
        Passage("1", "", "x", {"year": 1927}),
        Passage("b", "", "y"),
    ]
    with pytest.raises(DupmaeError, match="no column 'body'"):
        list(read_passages(tmp_path / "a.xlsx", text_field="body"))
