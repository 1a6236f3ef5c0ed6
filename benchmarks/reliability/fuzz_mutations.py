"""Choose the ways in which a file may be damaged, by its kind."""

from __future__ import annotations

from pathlib import Path

from fuzz_damage import (
    Mutation,
    change_columns,
    change_field,
    delete,
    double_line,
    drop_line,
    encode_otherwise,
    extend,
    fifo,
    flip,
    folder_instead,
    insert,
    link,
    link_to_copy,
    long_line,
    replace_content,
    swap,
    truncate,
    unreadable,
    zeros,
)
from fuzz_formats import (
    add_yaml,
    bomb,
    change_header,
    change_table,
    change_value,
    change_yaml,
    double_key,
    drop_key,
    flip_header,
    nest,
    other_compression,
    rename_key,
)

ANY: list[Mutation] = [
    truncate, truncate, extend, flip, flip, zeros, insert, replace_content, replace_content, swap, delete,
    folder_instead, link, link_to_copy, fifo, unreadable,
]  # fmt: skip
TEXT: list[Mutation] = [insert, insert, encode_otherwise, double_line, drop_line, long_line, change_field, change_field]
JSON: list[Mutation] = [drop_key, drop_key, change_value, change_value, change_value, rename_key, nest, double_key]
TENSORS: list[Mutation] = [change_header] * 6 + [flip_header] * 2
VALUES_CHANGE = {
    "truncate", "flip", "zeros", "insert", "extend", "change_value", "change_field", "double_key", "bomb",
    "other_compression", "change_table", "change_columns", "double_line", "drop_line", "long_line", "encode_otherwise",
}  # fmt: skip
"""Mutations that may leave another good file of the kind, whose results are other ones, unless it has checksums."""


def mutations_of(path: Path) -> list[Mutation]:
    """List the mutations that suit a file; those of its kind as often as those of any."""
    name = path.name
    own: list[Mutation] = []
    if name.endswith((".gz", ".xz", ".zst")):
        own = [bomb, other_compression, flip, truncate]
    elif name.endswith((".json", ".jsonl")):
        own = [*JSON, *TEXT[:3]]
    elif name.endswith((".yaml", ".yml")):
        own = [add_yaml, add_yaml, change_yaml, change_yaml, *TEXT[:3]]
    elif name.endswith(".safetensors"):
        own = TENSORS
    elif name.endswith(".parquet"):
        own = [change_table, flip, truncate]
    elif name.endswith((".tsv", ".trec")):
        own = [*TEXT, change_columns, change_field, change_field]
    elif name.endswith((".txt", ".md")):
        own = TEXT
    return own
