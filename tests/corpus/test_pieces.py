from dupmae.corpus import Passage
from dupmae.corpus.pieces import PIECE, in_pieces


def test_a_book_is_cut_at_its_best_borders_and_nothing_is_lost() -> None:
    words = " ".join(f"word{n}" for n in range(PIECE // 4))
    text = f"{words[: PIECE - 300]}\n\n{words[:200]}\n{words}\n{'x' * (2 * PIECE)}"
    short = Passage("a", "T", "y" * PIECE)
    first, *others = in_pieces([short, Passage("b", "Title", text, {"year": 1})])
    assert first is short
    assert [piece.id for piece in others] == [f"b#{n + 1}" for n in range(len(others))]
    assert [piece.title for piece in others] == ["Title"] + [""] * (len(others) - 1)
    assert others[0].text == words[: PIECE - 300]
    assert all(len(piece.text) <= PIECE and piece.metadata == {"year": 1} for piece in others)
    assert "".join("".join(piece.text.split()) for piece in others) == "".join(text.split())
    cut = [piece.text.split()[-1] for piece in others[1:-3]]
    assert set(cut) <= set(words.split())  # between words
