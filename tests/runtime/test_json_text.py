"""JSON that is damaged."""

import pytest

from dupmae.runtime.json_text import parse_json


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, b"\xff", "{'a': 1}"])
def test_json_that_is_damaged_is_one_kind_of_error_however_it_is(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
