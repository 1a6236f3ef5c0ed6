"""How fast each kind of file is read: megabytes of text a second, from files that it makes itself.

    python benchmarks/speed/readers.py      # some 2 MB of text a kind
    python benchmarks/speed/readers.py --mb 0.2 --kinds .html .md

The text is that of the project's own documents, with a heading every five paragraphs. Prints the table of
docs/data.md: the best of three readings, on one core.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
import zipfile
from collections.abc import Callable
from html import escape
from pathlib import Path

from dupmae import read_passages

DOCS = Path(__file__).parents[2] / "docs"
Blocks = list[tuple[bool, str]]
"""Headings (True) and paragraphs (False), each one line."""


def blocks_of(characters: int) -> Blocks:
    """Take paragraphs from the documents, over and over, up to so many characters."""
    paragraphs = [
        " ".join(paragraph.replace("|", " ").split())
        for file in sorted(DOCS.glob("*.md"))
        for paragraph in file.read_text(encoding="utf-8").split("\n\n")
        if len(paragraph) > 200 and not paragraph.lstrip().startswith(("```", "<", "|", "#"))
    ]
    blocks: Blocks = []
    length = number = 0
    while length < characters:
        if number % 5 == 0:
            blocks.append((True, f"Part {number // 5}"))
        blocks.append((False, paragraphs[number % len(paragraphs)]))
        length, number = length + len(blocks[-1][1]), number + 1
    return blocks


def write_lines(path: Path, blocks: Blocks) -> None:
    records = ({"_id": str(n), "text": text} for n, (_, text) in enumerate(blocks))
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_json(path: Path, blocks: Blocks) -> None:
    path.write_text(json.dumps([{"_id": str(n), "text": text} for n, (_, text) in enumerate(blocks)]), encoding="utf-8")


def write_csv(path: Path, blocks: Blocks) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["_id", "text"], *([n, text] for n, (_, text) in enumerate(blocks))])


def write_tsv(path: Path, blocks: Blocks) -> None:
    path.write_text("".join(f"{n}\t{text}\n" for n, (_, text) in enumerate(blocks)), encoding="utf-8")


def write_parquet(path: Path, blocks: Blocks) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Without a dictionary, which would hold each paragraph once.
    table = pa.table({"_id": [str(n) for n in range(len(blocks))], "text": [text for _, text in blocks]})
    pq.write_table(table, path, use_dictionary=False, compression="none")


def write_xlsx(path: Path, blocks: Blocks) -> None:
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    for row in (["_id", "text"], *([n, text] for n, (_, text) in enumerate(blocks))):
        sheet.append(row)
    book.save(path)


def write_text(path: Path, blocks: Blocks) -> None:
    path.write_text("\n\n".join(text for _, text in blocks), encoding="utf-8")


def write_markdown(path: Path, blocks: Blocks) -> None:
    path.write_text("\n\n".join("## " * heading + text for heading, text in blocks), encoding="utf-8")


def write_rst(path: Path, blocks: Blocks) -> None:
    parts = (f"{text}\n{'=' * len(text)}" if heading else text for heading, text in blocks)
    path.write_text("\n\n".join(parts), encoding="utf-8")


def markup(blocks: Blocks) -> str:
    parts = (f"<h2>{escape(text)}</h2>" if heading else f"<p>{escape(text)}</p>" for heading, text in blocks)
    return f"<html><head><title>Page</title></head><body><nav>Menu</nav><main>{''.join(parts)}</main></body></html>"


def write_html(path: Path, blocks: Blocks) -> None:
    path.write_text(markup(blocks), encoding="utf-8")


def write_epub(path: Path, blocks: Blocks) -> None:
    chapters = [blocks[start : start + 60] for start in range(0, len(blocks), 60)]
    items = "".join(f'<item id="c{n}" href="{n}.html" media-type="text/html"/>' for n in range(len(chapters)))
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", '<c><rootfile full-path="book.opf"/></c>')
        archive.writestr("book.opf", f"<p><manifest>{items}</manifest><spine>{spine}</spine></p>")
        for number, chapter in enumerate(chapters):
            archive.writestr(f"{number}.html", markup(chapter))


def write_docx(path: Path, blocks: Blocks) -> None:
    import docx

    document = docx.Document()
    for heading, text in blocks:
        document.add_paragraph(text, style="Heading 1" if heading else None)
    document.save(str(path))


def write_pdf(path: Path, blocks: Blocks) -> None:
    """Write pages of 60 lines, uncompressed, in a font that every reader has."""
    lines = [text[start : start + 90] for _, text in blocks for start in range(0, len(text), 90)]
    pages = [lines[start : start + 60] for start in range(0, len(lines), 60)]
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{' '.join(f'{4 + 2 * n} 0 R' for n in range(len(pages)))}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    for number, page in enumerate(pages):
        shown = "".join(f"({_escaped(line)}) Tj T*\n" for line in page)
        stream = f"BT /F1 9 Tf 11 TL 40 800 Td\n{shown}ET"
        objects += [
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F1 3 0 R>>>>"
            f"/Contents {5 + 2 * number} 0 R>>",
            f"<</Length {len(stream)}>>stream\n{stream}\nendstream",
        ]
    content, places = "%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(content))
        content += f"{number} 0 obj{text}endobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    start = len(content)
    content += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    content += f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF"
    path.write_text(content, encoding="latin-1")


def _escaped(line: str) -> str:
    return line.encode("ascii", "replace").decode().replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


KINDS: dict[str, Callable[[Path, Blocks], None]] = {
    ".txt": write_text,
    ".md": write_markdown,
    ".rst": write_rst,
    ".html": write_html,
    ".jsonl": write_lines,
    ".json": write_json,
    ".csv": write_csv,
    ".tsv": write_tsv,
    ".parquet": write_parquet,
    ".epub": write_epub,
    ".pdf": write_pdf,
    ".docx": write_docx,
    ".xlsx": write_xlsx,
}
"""Ending -> what writes such a file."""


def measure(path: Path, readings: int) -> tuple[float, float]:
    """Read a file several times; return its text's megabytes and the seconds of the fastest reading."""
    seconds, characters = [], 0
    for _ in range(readings):
        begin = time.perf_counter()
        characters = sum(len(passage.text) for passage in read_passages(path))
        seconds.append(time.perf_counter() - begin)
    return characters / 1e6, min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=2.0, help="megabytes of text a file")
    parser.add_argument("--readings", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    arguments = parser.parse_args()
    blocks = blocks_of(int(arguments.mb * 1e6))
    print("| kind | file, MB | text, MB | MB of text a second |\n|:--|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds:
            path = Path(folder, f"file{kind}")
            KINDS[kind](path, blocks)
            text, seconds = measure(path, arguments.readings)
            print(f"| `{kind}` | {path.stat().st_size / 1e6:.2f} | {text:.2f} | {text / seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
