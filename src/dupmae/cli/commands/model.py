"""`dupmae encode`, `pack`, `export` and `distil-queries`: encode texts with a model, and put it into other forms."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from dupmae.cli.commands.inputs import beside, passages_of, read_queries, say
from dupmae.config import CHUNK_TOKENS, BackendName, FieldsConfig
from dupmae.config.ranges import Count, Positive, Seed, Weight
from dupmae.errors import DupmaeError
from dupmae.files import atomic_folder, refuse_foreign, write_json

IDS_FILE = "ids.json"
CHUNKS_FILE = "chunks.json"


def encode(
    *,
    model: str,
    input: str,
    output: str,
    task: Literal["query", "document"] = "document",
    batch_size: Positive = 32,
    chunk_tokens: Count = CHUNK_TOKENS,
    chunk_overlap: Count | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    backend: BackendName | None = None,
    strict: bool = False,
    fields: FieldsConfig,
) -> None:
    """Encode texts with a duplex model, for use outside dupmae.

    Example:
      dupmae encode --model runs/finetuned/model --input articles.jsonl --output embeddings

    Writes the folder OUTPUT: the dense halves (cls), the lexical halves (ids, weights), and ids.json, the texts' ids in
    the order of the rows; if texts were cut into chunks also chunks.json, for each row null, or the document, the
    headings and the characters of the chunk. All texts and their embeddings are in memory; `dupmae index build` is for
    millions.

    Args:
        model: Folder of a duplex model.
        input: Texts, in any format that `dupmae pretrain --corpus` takes; with --task query every line of a .txt file
            is a query.
        output: Folder of the results.
        task: What the texts are; a document is cut to its heaviest terms, a query is not.
        batch_size: Texts encoded at a time.
        chunk_tokens: Cut longer documents into chunks of so many tokens, at headings and between sentences, and no
            longer than the model reads; 0 leaves them whole, of which the model reads the beginning.
        chunk_overlap: Tokens that a chunk repeats of the one before it; a fifth of --chunk_tokens if not given.
        precision: Arithmetic of the encoder; `auto` takes bfloat16 where the machine multiplies in it. Encode queries
            as the documents were.
        backend: What computes documents, as for `dupmae index build`.
        strict: Refuse a corpus of which a file or a record cannot be read, instead of naming it and going on.
        fields: The names of the corpus's fields.
    """
    folder = Path(output)
    refuse_foreign(folder, IDS_FILE)
    from dupmae.duplex.backends import open_encoder
    from dupmae.models import open_model
    from dupmae.runtime.bars import bar

    encoder = open_encoder(open_model(model, option="--model"), backend, precision)
    if task == "query":
        passages = list(read_queries(Path(input), fields))
    else:
        chunks = encoder.chunks(passages_of([input], fields, strict=strict), chunk_tokens, chunk_overlap)
        passages = list(bar(chunks, "Read and cut", "passages"))
    texts = [passage.full_text for passage in passages]
    embed = encoder.embed_queries if task == "query" else encoder.embed_documents
    embeddings = embed(texts, batch_size=batch_size, show_progress_bar=True)
    with atomic_folder(folder) as temporary:
        embeddings.save(temporary)
        write_json(temporary / IDS_FILE, [passage.id for passage in passages])
        if any(passage.chunk is not None for passage in passages):
            write_json(temporary / CHUNKS_FILE, [passage.chunk and asdict(passage.chunk) for passage in passages])
    say(f"Written: {output} ({len(passages)} texts)")


def pack(model: str, file: str, /, *, bits: int = 8, vocabulary_bits: int = 8) -> None:
    """Put a model into one small file, to keep or to send.

    Example:
      dupmae pack runs/finetuned/model model.safetensors
      dupmae index build --model model.safetensors --corpus articles.jsonl --output index

    Writes FILE. Every command takes it where a model's folder is asked for: it is unpacked into the user's cache once.
    8 bits a weight, a quarter of the size, hardly change a ranking; with 4 bits for the vocabulary's matrices, most of
    a small model, measure before you trust it.

    Args:
        model: Folder of a duplex model, or of any other whose weights are safetensors.
        file: The file to write.
        bits: Bits of a weight, 2 to 8.
        vocabulary_bits: Bits of a weight in the matrices that have a row for each term of the vocabulary.
    """
    from dupmae.models import open_model
    from dupmae.models.packing import pack as pack_into

    figures = pack_into(Path(open_model(model).path), Path(file), bits, vocabulary_bits)
    with beside(file):
        say(f"Written: {file} ({figures['bytes'] / 1e6:.1f} MB, no matrix off by more than {figures['error']:.1%})")


def unpack(model: str, folder: str, /) -> None:
    """Write a model as a folder of sentence-transformers, to look into it, to train it elsewhere, or to send it.

    Example:
      dupmae unpack dupmae-small small
      dupmae unpack model.safetensors model

    Writes FOLDER, which plain sentence-transformers opens, too (`SparseEncoder("small", trust_remote_code=True)`).

    Args:
        model: A packed file, `dupmae-small`, or a Hugging Face id.
        folder: The folder to write.
    """
    import shutil

    from dupmae.models import open_model

    opened, target = open_model(model), Path(folder)
    if target.resolve().is_relative_to(Path(opened.path).resolve()):  # a copy within what is copied never ends
        raise DupmaeError(f"{folder} lies in the model itself: name a folder outside of it.")
    refuse_foreign(target, "modeling_duplex.py")  # `duplex.pooling.CODE_FILE`, which PyTorch is needed to import
    with atomic_folder(target) as temporary:
        shutil.copytree(opened.path, temporary, dirs_exist_ok=True)
    say(f"Written: {folder}")


def export(
    model: str,
    /,
    *,
    to: Literal["onnx"] = "onnx",
    corpus: list[str] | None = None,
    most_loss: Weight = 0.005,
    seed: Seed = 42,
    strict: bool = False,
    fields: FieldsConfig,
) -> None:
    """Write the side of a model that encodes passages as graphs that run without PyTorch, faster where it can be had.

    Example:
      dupmae export runs/finetuned/model --corpus articles.jsonl
      dupmae index build --model runs/finetuned/model --corpus articles.jsonl --output index --backend onnx-int8

    Writes the folder `onnx` in the model's folder: passages.onnx, one graph of encoder, both halves and top k, for
    whatever runs ONNX (input_ids and attention_mask in; dense, ids and weights out); and with --corpus also
    passages-int8.onnx, the same with products of bytes. What int8 costs is measured at once, with queries drawn from
    the corpus: an index is built with it only if NDCG@10 falls by no more than --most_loss. (--backend onnx needs no
    export: it takes the model's own weights.)

    Args:
        model: Folder of a duplex model.
        to: The format.
        corpus: Texts of the kind that will be indexed, in any format that `dupmae index build` takes, for int8; some
            thousand do.
        most_loss: By how much NDCG@10 may fall for an index to be built in int8.
        seed: Seeds what is drawn.
        strict: Refuse a corpus of which a file or a record cannot be read, instead of naming it and going on.
        fields: The names of the corpus's fields.
    """
    del to  # there is one
    from dupmae.experiments.export import export as write
    from dupmae.models import open_model

    opened = open_model(model)
    made = write(
        opened,
        None if corpus is None else passages_of(corpus, fields, strict=strict),
        most_loss=most_loss,
        seed=seed,
    )
    for file in sorted(made.folder.glob("*.onnx")):
        say(f"Written: {file} ({file.stat().st_size / 1e6:.1f} MB)")
    if (probed := made.probed) is None:
        say("No int8: name texts to calibrate and measure it with (--corpus).")
        return
    verdict = "may" if probed.loss <= probed.most_loss else "may not (--most_loss)"
    say(
        f"int8: NDCG@10 {probed.int8:.4f}, float32 {probed.float32:.4f} ({probed.queries} queries drawn from the"
        f" corpus, {probed.passages:,} passages); an index {verdict} be built with it."
    )


def distil_queries(
    model: str,
    /,
    *,
    corpus: list[str],
    queries: str | None = None,
    texts: Positive = 40_000,
    seed: Seed = 42,
    strict: bool = False,
    fields: FieldsConfig,
) -> None:
    """Make a table of vectors with which queries are encoded without any network, a little less exactly.

    Example:
      dupmae distil-queries runs/finetuned/model --corpus articles.jsonl
      dupmae search index "does vitamin D prevent fractures?" --query_encoder static

    Writes queries.static into the model's folder, in place of what was there. The dense half of a query is then a sum
    of vectors of its tokens, fitted to what the model makes of titles, sentences and runs of words of the corpus (the
    one that is searched, or else general text), and of every token by itself. Prints how close the table comes to the
    model on texts that it was not fitted to; measure rankings on queries of your own before you trust it. A model whose
    queries need its output matrix (query_terms logits) is refused.

    Args:
        model: Folder of a duplex model.
        corpus: Texts, in any format that `dupmae index build` takes.
        queries: File with queries of the kind that will be asked, without judgements, to fit to as well; of a text file
            every line is one.
        texts: Titles, sentences and runs of words that are drawn and encoded, at most.
        seed: Seeds all draws.
        strict: Refuse a corpus of which a file or a record cannot be read, instead of naming it and going on.
        fields: The names of the corpus's fields.
    """
    from dupmae.duplex.distilling import distil_queries as distil
    from dupmae.models import open_model

    opened = open_model(model)
    asked = [] if queries is None else [query.full_text for query in read_queries(Path(queries), fields)]
    made = distil(opened, passages_of(corpus, fields, strict=strict), asked, texts=texts, seed=seed)
    close = f"{made.texts:,} texts; cosine with the model on others {made.cosine:.3f}"
    say(f"Written: {made.file} ({made.file.stat().st_size / 1e6:.1f} MB, {close})")
