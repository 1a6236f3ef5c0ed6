import random
import re

import pytest

from dupmae.corpus.chunking import SENTENCE_END, sentences_of

PLAIN = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s+[^\sa-z])|[。！？]+[」』”’）]*|(?=\n\s*\n)")  # noqa: RUF001
"""What a sentence's end is, written without care for the time that it takes."""


def test_sentences_end_where_the_plain_expression_says() -> None:
    draw = random.Random(7)
    for _ in range(20_000):
        text = "".join(draw.choices(".!?…\"'”’»)]。！？」』）  \n\n\t\raB1é", k=draw.randint(1, 14)))  # noqa: RUF001
        assert [match.span() for match in SENTENCE_END.finditer(text)] == [
            match.span() for match in PLAIN.finditer(text)
        ], repr(text)


@pytest.mark.parametrize("run", [".", "\n", ".\n", " .", "\n\r", '?"', ". a"])
def test_long_runs_of_punctuation_and_line_breaks_are_cut(run: str) -> None:
    text = "One. Two" + 100_000 * run

    assert "".join(sentences_of(text)) == text
