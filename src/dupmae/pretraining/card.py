"""The model card of a pre-trained checkpoint: what it learnt from, how, and how well."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from dupmae.files import atomic_write
from dupmae.pretraining.data import Sequences
from dupmae.pretraining.objective import TERMS

FIGURES = {
    "loss": "Eq. 9, the weighted sum of the losses (nats)",
    "mlm": "Eq. 1, masked words: loss (nats)",
    "mlm_accuracy": "Eq. 1, masked words: accuracy",
    "cls": "Eq. 5, [CLS] decoding: loss (nats)",
    "cls_accuracy": "Eq. 5, [CLS] decoding: accuracy",
    "bow": "Eq. 8, bag of words: loss (nats)",
    "bow_recall": "Eq. 8, a text's n different words among its n highest terms",
    "anchor": "1 - cosine to the anchor's vectors",
    "mrr_cls": "probe, [CLS] alone: MRR@10",
    "mrr_ot": "probe, ordinary tokens alone: MRR@10",
    "mrr_both": "probe, both: MRR@10",
}
"""What is measured, in the words of the card."""


def write_card(folder: Path, record: Mapping[str, Any], store: Sequences, held_out: int, curves: str | None) -> None:
    """Write `README.md` with its metadata into a checkpoint folder.

    Args:
        folder: The checkpoint.
        record: Its `dupmae.json`.
        store: The text that it was trained on.
        held_out: How many texts were measured on.
        curves: File name of the figure beside the card, if there is one.
    """
    base_model = str(record["start"])
    local = Path(base_model).is_dir()  # a folder of somebody's disk says nothing to readers elsewhere
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="fill-mask",
        tags=["dupmae", "retromae-2", "retrieval", "pre-training"],
        base_model=None if local else base_model,
    )
    tokens = int(store.lengths.sum()) - 2 * len(store)
    steps = ", ".join(f"{count:,} in the phase {phase}" for phase, count in record["steps"].items())
    settings = record["settings"]
    batch = settings["batch_size"] * settings["gradient_accumulation_steps"] * record["processes"]
    kept = record["kept"]
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {Path(base_model).name}, pre-trained with DupMAE",
        _learnt(settings),
        "## Use",
        "```python\nfrom transformers import AutoModel, AutoModelForMaskedLM\n\n"
        'encoder = AutoModel.from_pretrained("path/to/this/folder")\n'
        'with_head = AutoModelForMaskedLM.from_pretrained("path/to/this/folder")\n```',
        "`dupmae finetune --model FOLDER` makes a duplex retriever of it, and `dupmae pretrain --model FOLDER` goes on "
        "pre-training, with the decoder in `decoder.safetensors`.",
        "## Data",
        f"{int(store.begins.sum()):,} texts in {len(store):,} chunks with {tokens:,} tokens; "
        + (f"{held_out:,} of the texts were held out and only measured on." if held_out else "none was held out."),
        "## Training",
        f"Steps: {steps}; {batch:,} chunks a step. This is the state after step {kept['step']:,} of the phase "
        f"{kept['phase']} (`keep: {settings['keep']}`).",
    ]
    if curves:
        parts.append(f"![Losses over the steps]({curves})")
    parts += ["## Figures", _table(record["losses"], record["held_out"])]
    if record["held_out"]:
        parts.append(
            "The probe asks whether the title of a held-out text, or its beginning, finds the rest of it among "
            "all of them, before any fine-tuning."
        )
    dump = yaml.safe_dump(dict(settings), sort_keys=False, width=120).strip()
    parts += ["## Settings", f"```yaml\n{dump}\n```", f"Made with dupmae {version('dupmae')}."]
    with atomic_write(folder / "README.md") as file:
        file.write("\n\n".join(parts) + "\n")


def _learnt(settings: Mapping[str, Any]) -> str:
    """Say what the encoder is."""
    teacher = settings["anchor_model"]
    name = "" if teacher is None else Path(teacher).name
    if not any(settings[f"{term}_weight"] for term in TERMS):
        return (
            f"An encoder whose dense vectors were drawn to those of {name} on raw text; its vocabulary head, if it has "
            "learnt at all, is as it was before."
        )
    return (
        "An encoder with its vocabulary head, pre-trained for retrieval with the three losses of DupMAE (RetroMAE-2, "
        "arXiv 2305.02564): masked words, rebuilding the text from the [CLS] state, and naming the text's words from "
        "its ordinary tokens. "
        + (f"Beside them its dense vectors were drawn to those of {name}. " if name else "")
        + "It is a base model for fine-tuning, not a retriever yet."
    )


def _table(losses: Mapping[str, float], held_out: Mapping[str, float]) -> str:
    """Lay out a row a figure: in training (mean of the last steps), and of this state on held-out text."""
    lines = ["| | last training steps | held-out text |", "|:--|--:|--:|"]
    for name, words in FIGURES.items():
        if name in losses or name in held_out:
            cells = [f"{figures[name]:.3f}" if name in figures else "" for figures in (losses, held_out)]
            lines.append(f"| {words} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)
