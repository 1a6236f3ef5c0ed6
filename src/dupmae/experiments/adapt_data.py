"""What `adapt` trains on: documents cut into passages, and given pairs beside those that are drawn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dupmae.config import AdaptConfig
from dupmae.corpus import Benchmark, Passage
from dupmae.corpus.duplicates import normalized
from dupmae.models import Model
from dupmae.runtime.bars import bar


def passages_to_train_on(documents: Sequence[Passage], base_model: Model, config: AdaptConfig) -> dict[str, Passage]:
    """Cut documents into the passages that queries are drawn from and that are searched for them.

    They repeat nothing of each other, so that a sentence has one answer; and a title stays with a document's first one.
    """
    if not config.chunk_tokens:
        return {passage.id: passage for passage in documents}
    if base_model.kind == "duplex":
        from dupmae.duplex import DuplexEncoder

        chunks = DuplexEncoder(base_model).chunks(documents, config.chunk_tokens, 0)
    else:
        from dupmae.backbones.opening import open_tokenizer
        from dupmae.corpus.chunks import chunk_documents
        from dupmae.duplex.encoder import DOCUMENT_LENGTH

        tokenizer = open_tokenizer(base_model)
        length = min(config.duplex.document_max_length or DOCUMENT_LENGTH, tokenizer.model_max_length)
        prompt = config.duplex.document_prompt or ""
        chunks = chunk_documents(documents, tokenizer, config.chunk_tokens, 0, limit=length - 2, prompt=prompt)
    passages, titled = dict[str, Passage](), set[str]()
    for chunk in bar(chunks, "Cut", "passages"):
        title = "" if chunk.document in titled else chunk.title
        passages[chunk.id] = chunk if chunk.chunk is None else replace(chunk, title=title, chunk=None)
        titled.add(chunk.document)
    return passages


def with_pairs(train: Benchmark, pairs: Benchmark, corpus: Mapping[str, Passage]) -> Benchmark:
    """Join given pairs to those drawn from a corpus.

    A given passage that reads like one of the corpus, with its title or, where it has none, without, whatever its case
    and white space, is that one: it must not become a negative of its own query, nor be trained on if it is held out.

    Args:
        train: Pairs drawn from (a part of) the corpus.
        pairs: Given pairs; their ids get `given:` in front.
        corpus: The passages as they were before queries were drawn from them. Judgements of those that `train` lacks,
            because they are held out, are dropped.
    """
    names: dict[str, str] = {}
    for identifier, passage in corpus.items():
        names.setdefault(normalized(passage.full_text), identifier)
    for identifier, passage in corpus.items():
        names.setdefault(normalized(passage.text), identifier)
    joined, known = dict(train.corpus), dict[str, str]()
    for identifier, passage in pairs.corpus.items():
        name = names.setdefault(normalized(passage.full_text), f"given:{identifier}")
        if name not in corpus:
            joined[name] = replace(passage, id=name)
        if name in joined:
            known[identifier] = name
    queries, qrels = dict(train.queries), dict(train.qrels)
    for query, grades in pairs.qrels.items():
        kept = {known[passage]: grade for passage, grade in grades.items() if passage in known}
        if any(grade > 0 for grade in kept.values()):
            queries[f"given:{query}"], qrels[f"given:{query}"] = pairs.queries[query], kept
    return replace(train, corpus=joined, queries=queries, qrels=qrels)
