"""The one way to open a model: whatever loads weights or a tokenizer goes through here.

A model's files were checked when it was found (:func:`dupmae.models.open_model`). What can only be told by loading is
told here: no weight is missing, of another shape or not a number; the tokenizer belongs to the encoder; and a first
text goes through. What a library says in words of its own becomes one sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from dupmae.backbones.declared import lower_cases
from dupmae.errors import DupmaeError
from dupmae.models import Model, check_files
from dupmae.models.checks import AGAIN
from dupmae.models.files import read_settings
from dupmae.runtime.quiet import silenced

logger = logging.getLogger(__name__)

LEAST_ENTRIES = 0.5
"""Share of an encoder's rows that its tokenizer has entries for, at least; the rest may be padding."""
REASON_LENGTH = 160
"""Characters of a library's own words, at most."""
Whole = Literal["all", "states", "encoder"]
"""Which weights have to be there: `all`; those that an encoder's `states` depend on, its pooler not among them; or the
`encoder`'s, because it gets a new head."""

Loaded = TypeVar("Loaded")


@contextmanager
def opening(label: str, folder: str = "") -> Iterator[None]:
    """Turn whatever a library raises while it reads a model into one sentence; its own messages are silenced.

    Args:
        label: What the user calls the model.
        folder: Of its encoder, where that is known: its tokenizer is looked at, about which transformers says nothing.

    Raises:
        DupmaeError: Something was raised.
    """
    try:
        with silenced():
            yield
    except DupmaeError:
        raise
    except BaseException as error:  # damaged files raise anything, panics of Rust among it, which are no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DupmaeError(
            f"{label} cannot be opened ({_fault_of_tokenizer(folder) or _reason(error)}): name the folder or id of a "
            "model that is whole and that transformers can read, or fetch or save it again."
        ) from error


def open_tokenizer(model: Model | str, rows: int | None = None) -> Any:
    """Load a model's tokenizer.

    Args:
        model: The model.
        rows: Rows of the encoder's embeddings, where they are known.

    Raises:
        DupmaeError: It has none, or none that can be used (:func:`check_tokenizer`).
    """
    from transformers import AutoTokenizer

    model = checked(model)
    with opening(f"the tokenizer of {model.label}", model.encoder_path):
        tokenizer = AutoTokenizer.from_pretrained(model.encoder_path)
    check_tokenizer(tokenizer, model.label, rows)
    check_declared_tokenizer(tokenizer, model)
    if lower_cases(model):
        lower_case(tokenizer)
    return tokenizer


def check_tokenizer(tokenizer: Any, label: str, rows: int | None = None) -> None:
    """Refuse a tokenizer that cannot be an encoder's.

    Args:
        tokenizer: As transformers loads it.
        label: What the user calls the model.
        rows: Rows of the encoder's embeddings, where they are known.

    Raises:
        DupmaeError: It knows special tokens alone, gives ids that the encoder has no row for, has far fewer entries
            than the encoder rows, or has no padding token.
    """
    entries = tokenizer.get_vocab()
    ids = set(entries.values())
    if ids <= set(tokenizer.all_special_ids):
        raise DupmaeError(
            f"The tokenizer of {label} knows special tokens alone: its files (tokenizer.json, vocab.txt or the like) "
            "are missing or damaged; copy them from where the model comes from."
        )
    if rows is not None and max(ids) >= rows:
        raise DupmaeError(
            f"The tokenizer of {label} gives ids up to {max(ids)}, beyond the {rows} rows of its encoder: enlarge the "
            "encoder with resize_token_embeddings, or take the tokenizer that belongs to it."
        )
    if rows is not None and len(ids) < LEAST_ENTRIES * rows:
        raise DupmaeError(
            f"The tokenizer of {label} has {len(ids)} entries, its encoder {rows} rows: take the tokenizer that "
            "belongs to it."
        )
    if tokenizer.pad_token_id is None:
        raise DupmaeError(
            f"The tokenizer of {label} has no padding token, which batches need: name one as pad_token in its "
            "tokenizer_config.json."
        )
    with opening(f"the tokenizer of {label}"):
        (_, around) = tokenizer(["a", ""], verbose=False)["input_ids"]
    unnamed = [tokenizer.convert_ids_to_tokens(one) for one in around if one not in tokenizer.all_special_ids]
    if unnamed:
        raise DupmaeError(
            f"The tokenizer of {label} puts {unnamed[0]} around a text and names it nowhere as a special token: "
            "name it in its tokenizer_config.json (cls_token, sep_token), or it would count as a word of the text."
        )


def check_declared_tokenizer(tokenizer: Any, model: Model) -> None:
    """Refuse a tokenizer that reads another way than its tokenizer.json says, for want of a tokenizer_config.json.

    Raises:
        DupmaeError: It does.
    """
    from tokenizers import Tokenizer

    folder = Path(model.encoder_path)
    if not (folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file():
        return
    text = "A lamp (3.5 m) isn't lit; É"
    with opening(f"the tokenizer of {model.label}", str(folder)):
        own = Tokenizer.from_file(str(folder / "tokenizer.json"))
        own.no_truncation()
        own.no_padding()
        same = own.encode(text, text).ids == tokenizer(text, text, verbose=False)["input_ids"]
    if not same:
        raise DupmaeError(
            f"{model.label} lacks tokenizer_config.json, without which its tokenizer reads another way than its "
            f"tokenizer.json says: {AGAIN}"
        )


def check_report(report: dict[str, Any], module: Any, label: str, whole: Whole = "states") -> None:
    """Refuse weights that are not those of the model that was built for them.

    Args:
        report: What transformers' `from_pretrained` returns with `output_loading_info`.
        module: The model of transformers.
        label: What the user calls it.
        whole: Which weights have to be there.

    Raises:
        DupmaeError: Weights are missing or of another shape, or the encoder has no place for some of its own.
    """
    prefix = f"{module.base_model_prefix}."
    missing = sorted(report["missing_keys"])
    if whole != "all":
        missing = [name for name in missing if not name.removeprefix(prefix).startswith("pooler.")]
    if whole == "encoder":
        missing = [name for name in missing if name.startswith(prefix)]
    if missing:
        raise DupmaeError(
            f"{label} lacks {'encoder ' * missing[0].startswith(prefix)}weights ({len(missing)}, the first of them "
            f"{missing[0]}): none is drawn at random; {AGAIN}"
        )
    other = sorted(entry if isinstance(entry, str) else entry[0] for entry in report["mismatched_keys"])
    if other:
        raise DupmaeError(f"{label}: its weight {other[0]} is of another shape than its config.json says: {AGAIN}")
    parts = {name for name, _ in module.base_model.named_children()} - {"pooler"}
    known = {f"{prefix}{name}" for name, _ in module.base_model.named_buffers()}
    beyond = sorted(
        name
        for name in report["unexpected_keys"]
        if name.removeprefix(prefix).partition(".")[0] in parts
        and not name.endswith(("position_ids", "inv_freq"))
        and name not in known
    )
    if beyond:
        raise DupmaeError(
            f"{label} has weights more than its config.json says ({len(beyond)}, the first of them {beyond[0]}): the "
            f"two do not belong together; {AGAIN}"
        )


def check_numbers(module: nn.Module, label: str) -> None:
    """Refuse weights that are not numbers (NaN, infinity).

    Raises:
        DupmaeError: There are some.
    """
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if value.is_floating_point() and not value.is_meta and not torch.isfinite(value).all():
            raise DupmaeError(f"{label}: its weights {name} hold what is not a number (NaN or infinity): {AGAIN}")


def open_modules(kind: type[Loaded], model: Model, whole: Whole = "states", **options: Any) -> Loaded:
    """Load a model of sentence-transformers and let a first text go through it.

    Args:
        kind: `SentenceTransformer`, `SparseEncoder` or `CrossEncoder`.
        model: The model.
        whole: As for :func:`check_report`.
        **options: For `kind`.

    Raises:
        DupmaeError: It cannot be loaded, or not as a whole.
    """
    options["model_kwargs"] = {"ignore_mismatched_sizes": True} | options.get("model_kwargs", {})  # told below
    with opening(model.label, model.encoder_path):
        loaded: Any = kind(model.path, **options)  # type: ignore[call-arg]
    check_modules(loaded, model, whole)
    with opening(model.label):
        output = loaded.predict([("a", "a")]) if hasattr(loaded, "predict") else loaded.encode(["a"])
    check_output(output, model.label)
    return loaded  # type: ignore[no-any-return]


def check_modules(modules: Any, model: Model, whole: Whole = "states") -> None:
    """Check the modules of a loaded model of sentence-transformers, and read no text beyond an encoder's positions.

    Args:
        modules: The modules, in their order.
        model: Where they come from.
        whole: As for :func:`check_report`.

    Raises:
        DupmaeError: As :func:`check_report`, :func:`check_tokenizer` and :func:`check_numbers`.
    """
    from sentence_transformers.base.modules import Transformer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    for module in modules:
        if isinstance(module, Transformer):
            if isinstance(module.model, PreTrainedModel):
                with opening(model.label):
                    report = loading_report(module.model, model.encoder_path)
                check_report(report, module.model, model.label, whole)
            if isinstance(module.tokenizer, PreTrainedTokenizerBase):
                with opening(model.label):
                    rows = module.model.get_input_embeddings().num_embeddings
                check_tokenizer(module.tokenizer, model.label, rows)
                check_declared_tokenizer(module.tokenizer, model)
            limit_to_positions(module, model.label)
        if isinstance(module, nn.Module):
            check_numbers(module, model.label)
    for entry in model.modules:
        if entry["type"].endswith(".Pooling"):
            settings = read_settings(model.path, f"{entry['path']}/config.json")
            if not any(name.startswith("pooling_mode") for name in settings):
                raise DupmaeError(f"{model.label}: {entry['path']}/config.json names no pooling_mode: {AGAIN}")


def loading_report(loaded: Any, path: str) -> dict[str, Any]:
    """Compare the names and shapes of a folder's weights with a loaded model's; no weight is read for it."""
    _, report = type(loaded).from_pretrained(
        path, config=deepcopy(loaded.config), device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True
    )
    return dict(report)


def check_output(output: Any, label: str) -> None:
    """Refuse a model that makes something else than numbers of a first text.

    Raises:
        DupmaeError: It does.
    """
    values = torch.as_tensor(output)
    values = values.coalesce().values() if values.is_sparse else values
    if not torch.isfinite(values.float()).all():
        raise DupmaeError(f"{label} gives what is not a number (NaN or infinity) for a text: {AGAIN}")


def limit_to_positions(transformer: Any, label: str) -> None:
    """Let a module of sentence-transformers read no text beyond its encoder's positions, whatever its files say.

    Raises:
        DupmaeError: A length is no number of tokens.
    """
    embeddings = getattr(getattr(transformer.model, "base_model", None), "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    most = None
    if isinstance(table, nn.Embedding):
        most = table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    for name in ("query_length", "document_length", "max_seq_length"):
        length = getattr(transformer, name)
        if length is None:
            continue
        if isinstance(length, bool) or not isinstance(length, int) or length < 3:
            raise DupmaeError(f"{label}: its {name} is {length!r}, where a number of tokens belongs: {AGAIN}")
        if most is not None and length > most:
            setattr(transformer, name, most)


def lower_case(tokenizer: Any) -> None:
    """Let a tokenizer lower-case texts first, as sentence-transformers does where a model's files ask for it."""
    from tokenizers.normalizers import Lowercase, Sequence

    backend = tokenizer.backend_tokenizer
    backend.normalizer = Sequence([Lowercase(), *([] if backend.normalizer is None else [backend.normalizer])])


def add_ends(tokenizer: Any, label: str) -> None:
    """Let a tokenizer that puts no special tokens around a text put them there as pre-training does, in place.

    Raises:
        DupmaeError: It has no such tokens.
    """
    from tokenizers.processors import TemplateProcessing

    if len(tokenizer("", verbose=False)["input_ids"]):
        return
    first, last = (
        next((token for token in pair if token is not None), None)
        for pair in ((tokenizer.cls_token, tokenizer.bos_token), (tokenizer.sep_token, tokenizer.eos_token))
    )
    if first is None or last is None:
        raise DupmaeError(
            f"The tokenizer of {label} puts no special tokens around a text and has none for its start (cls, bos) or "
            "its end (sep, eos): name them in its tokenizer_config.json."
        )
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in dict.fromkeys((first, last))]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} $B {last}", special_tokens=ids
    )


def checked(model: Model | str) -> Model:
    """Make a model of a folder or id that was found already, its files checked."""
    if isinstance(model, Model):
        return model
    if Path(model).is_dir():
        check_files(Path(model), model)
    return Model(model)


def _fault_of_tokenizer(folder: str) -> str:
    """Say what is wrong with a folder's tokenizer.json; empty where nothing is, or there is none."""
    from tokenizers import Tokenizer

    file = Path(folder) / "tokenizer.json"
    if not folder or not file.is_file():
        return ""
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # of no kind of its own
        return f"tokenizer.json is damaged, {_reason(error)}"
    return ""


def _reason(error: BaseException) -> str:
    """Put what a library says into a few words of one line."""
    words = " ".join(str(error).split())
    words = "".join(character for character in words if character.isprintable())
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return said if len(said) <= REASON_LENGTH else f"{said[:REASON_LENGTH]}..."
