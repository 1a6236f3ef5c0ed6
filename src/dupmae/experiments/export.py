"""Export the passages' side of a model as ONNX: in float32, and with products of bytes, which is measured at once."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from dupmae.corpus import Benchmark, Passage
from dupmae.corpus.pseudo_queries import known_items
from dupmae.duplex.onnx import exported
from dupmae.duplex.onnx.encoder import OnnxEncoder
from dupmae.errors import DupmaeError
from dupmae.evaluation import evaluate_run
from dupmae.files import atomic_folder
from dupmae.index import DuplexIndex
from dupmae.models import Model
from dupmae.retrievers import duplex_run

CALIBRATED = 256
"""Passages that ranges of numbers are taken from."""
ITEMS = 200
"""Passages that queries are drawn from, at most."""
POOL = 2000
"""Passages that are searched, at most."""
SAMPLE = 100_000
"""Passages of a corpus that are drawn from; of a longer one its first."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    folder: Path
    probed: exported.Probed | None
    """What int8 was measured to cost; None where there are no texts to make it with."""


def export(model: Model, documents: Iterable[Passage] | None, *, most_loss: float, seed: int) -> Exported:
    """Write the files of ONNX into a model's folder, in place of what was there.

    Args:
        model: A duplex model.
        documents: Texts of the kind that will be indexed, which the int8 file is calibrated and measured with: queries
            drawn from some of them search a part of them, encoded in float32 and in int8. None leaves int8 out.
        most_loss: By how much NDCG@10 may fall for an index to be built in int8.
        seed: Seeds all draws.

    Raises:
        DupmaeError: ONNX Runtime does not run the model's encoder; too few texts; the package `onnx` is missing.
    """
    with atomic_folder(Path(model.path) / exported.FOLDER) as folder:
        source = exported.write_float32(model, folder)
        probed = None
        if documents is not None:
            whole = OnnxEncoder(model)
            calibration, probe = _drawn(whole, documents, seed)
            target = folder / exported.INT8_FILE
            exported.quantise(model, source, calibration, target)
            inexact = OnnxEncoder(model, exported.open_quantised(target, model), "int8")
            float32, int8 = (_ndcg(encoder, model, probe) for encoder in (whole, inexact))
            probed = exported.Probed(len(probe.queries), len(probe.corpus), float32, int8, most_loss)
            exported.note(target, model, probed)
        exported.finish(folder)
    return Exported(Path(model.path) / exported.FOLDER, probed)


def _drawn(encoder: OnnxEncoder, documents: Iterable[Passage], seed: int) -> tuple[list[str], Benchmark]:
    """Draw passages to calibrate with, and queries with the passages that they search, which are others.

    Raises:
        DupmaeError: There are too few.
    """
    passages = dict[str, Passage]()
    for passage in encoder.chunks(documents):
        passages[passage.id] = replace(passage, chunk=None)
        if len(passages) == SAMPLE:
            break
    ids = random.Random(seed).sample(sorted(passages), len(passages))
    calibration = ids[: min(CALIBRATED, len(ids) // 4)]
    if not calibration:
        raise DupmaeError("The corpus is too small to calibrate int8 with: give some hundred texts.")
    rest = {identifier: passages[identifier] for identifier in ids[len(calibration) :]}
    return [passages[identifier].full_text for identifier in calibration], known_items(
        rest, "the corpus", ITEMS, POOL, seed
    )


def _ndcg(encoder: OnnxEncoder, model: Model, probe: Benchmark) -> float:
    """Measure how well queries find their passages (NDCG@10), with all parts of the score."""
    with tempfile.TemporaryDirectory() as place:
        passages = probe.corpus.values()
        index = DuplexIndex.build(Path(place), encoder, passages, model=model.name, chunk_tokens=0)
        return evaluate_run(duplex_run(index, probe, 10), probe.qrels, ["ndcg@10"])["ndcg@10"]
