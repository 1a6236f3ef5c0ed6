"""Cut Wikipedia articles into passages under their section's heading, for recipes/small.yaml.

    python recipes/wikipedia_passages.py ARTICLES.jsonl.xz ... --output passages.jsonl
    python recipes/wikipedia_passages.py ARTICLES.jsonl.xz ... --output sample.jsonl --sample 20000

Articles are JSON Lines with `_id`, `title` and `text`, a paragraph or a heading a line, as plain-text dumps have them.
Of each article the first passages are kept and some others, drawn by its id, so that long articles do not make up most
of the text. A passage's title is the article's, followed by the section's heading.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dupmae.corpus import Passage, read_passages
from dupmae.corpus.chunking import sentences_of
from dupmae.files import atomic_write

SEED = 42
"""Draws the sample."""
HEADING = re.compile(r"^\W*\w.{0,60}\.$")
"""What a heading looks like: a short line with a full stop behind it ..."""
HEADING_WORDS = 8
"""... and at most so many words."""
LEAST_WORDS = 40
"""Words of a passage, at least: paragraphs of a section are joined up to so many, shorter sections left out."""
MOST_WORDS = 160
"""Words of a passage, at most, unless one sentence has more: it ends with the sentence before."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("articles", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--first", type=int, default=2, help="passages kept from an article's beginning")
    parser.add_argument("--others", type=int, default=4, help="passages drawn from the rest of it")
    parser.add_argument("--sample", type=int, help="passages to draw of all these")
    options = parser.parse_args()
    passages = [
        passage
        for source in options.articles
        for article in tqdm(read_passages(source), desc=source.name, unit=" articles")
        for passage in chosen(article, options.first, options.others)
    ]
    if options.sample is not None:
        passages = random.Random(SEED).sample(passages, options.sample)
    with atomic_write(options.output) as file:
        file.writelines(json.dumps(passage, ensure_ascii=False) + "\n" for passage in passages)
    print(f"Written: {options.output} ({len(passages):,} passages)")


def chosen(article: Passage, first: int, others: int) -> list[dict[str, Any]]:
    """The passages of an article that are kept, in their order."""
    passages = list(passages_of(article))
    rest = range(first, len(passages))
    drawn = random.Random(article.id).sample(rest, min(others, len(rest)))
    return [passages[place] for place in sorted([*range(min(first, len(passages))), *drawn])]


def passages_of(article: Passage) -> Iterator[dict[str, Any]]:
    """Cut an article."""
    number, heading, words = 0, "", list[str]()

    def passage() -> dict[str, Any]:
        title = f"{article.title}: {heading}" if heading else article.title
        return {"_id": f"{article.id}-{number}", "title": title, "text": " ".join(words)}

    for line in article.text.split("\n"):
        line = line.strip()
        if HEADING.match(line) and len(line.split()) <= HEADING_WORDS:
            if len(words) >= LEAST_WORDS:
                yield passage()
                number += 1
            heading, words = line.rstrip("."), []
            continue
        for sentence in sentences_of(line):
            more = sentence.split()
            if len(words) >= LEAST_WORDS and len(words) + len(more) > MOST_WORDS:
                yield passage()
                number, words = number + 1, []
            words += more
    if len(words) >= LEAST_WORDS:
        yield passage()


if __name__ == "__main__":
    main()
