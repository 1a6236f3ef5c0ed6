"""The index as its users see it: build, open, change, search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from dupmae.config import CHUNK_TOKENS, BackendName, QueryEncoderName
from dupmae.corpus import Passage
from dupmae.corpus.chunks import chunk_settings
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.duplex.queries import QueryEncoder, open_queries
from dupmae.errors import DupmaeError, refuse_string
from dupmae.index.hits import Hit
from dupmae.index.scoring.approximate import Approximate, approximate_top_k
from dupmae.index.scoring.exact import best_documents, rescore, top_k
from dupmae.index.scoring.explaining import explain_hit
from dupmae.index.scoring.query import UNCHANGED, Part, Query, Weights, prepare_queries
from dupmae.index.scoring.snapshot import Snapshot
from dupmae.index.scoring.words import with_rarity
from dupmae.index.storage.manifest import CHUNKS_FILE, MAX_PASSAGES, Manifest
from dupmae.index.storage.passages import IDS_FILE, TEXTS_FILE
from dupmae.index.storage.segments import VECTORS_FILE
from dupmae.index.where import Where, fields_of, read_filter
from dupmae.index.writing.build import add_passages, build_segments
from dupmae.index.writing.changes import build_clusters, compact_segments, delete_documents, require_finished
from dupmae.index.writing.encoding import Encoder, fitted, word_space_of
from dupmae.index.writing.progress import count_passages
from dupmae.index.writing.sync import Synced, compare
from dupmae.models import Model, model_fingerprint, open_model
from dupmae.runtime.bars import bar

Group = Literal["document", "none"]
"""What a search ranks: documents, each by the best of its chunks, or every passage by itself."""


class DuplexIndex:
    """An index folder, opened for exact search by Eq. 12 and, if its model has them, whole words.

    Use :meth:`build` or :meth:`open`. Opening maps one committed state of the folder, which later changes by other
    processes do not touch (:meth:`refresh` moves on to the newest); texts are read only for hits, and what encodes
    queries is opened when the first one comes: the model in ONNX Runtime, or in PyTorch if it is loaded. Threads may
    share an index: each search keeps to the state it began with.

    Examples:
        >>> from pathlib import Path
        >>> from dupmae import DuplexEncoder, DuplexIndex
        >>> from dupmae.corpus import Passage
        >>> passages = [
        ...     Passage("rain", "", "Water falls from clouds as rain."),
        ...     Passage("bread", "", "A loaf of bread is baked from flour, water and yeast."),
        ... ]
        >>> index = DuplexIndex.build(Path("index"), DuplexEncoder("dupmae-small"), passages)
        >>> hits = index.search(["how is a loaf made?"])[0]
        >>> hits[0].id, hits[0].matches[0][0]
        ('bread', 'loaf')
        >>> index.delete(["rain"])
        []
        >>> len(DuplexIndex.open(Path("index")))
        1
    """

    def __init__(self, folder: Path, encoder: Encoder | None = None) -> None:
        self.folder = folder
        self.snapshot = Snapshot.open(folder)
        """The committed state that is searched."""
        self.query_encoder: QueryEncoderName | None = None
        """What encodes queries: None takes PyTorch if the model is loaded in it, and else ONNX Runtime."""
        self.backend: BackendName | None = None
        """What encodes passages that are added: None takes PyTorch where it is installed, else ONNX Runtime, and
        for an index in int8 the model's export."""
        self._model: Model | None = None
        self._encoder = None if encoder is None else fitted(encoder, folder, self.manifest)
        self._queries: QueryEncoder | None = None

    @classmethod
    def build(
        cls,
        folder: Path,
        encoder: Encoder,
        passages: Iterable[Passage],
        *,
        model: str | None = None,
        batch_size: int = 32,
        segment_passages: int = MAX_PASSAGES,
        chunk_tokens: int = CHUNK_TOKENS,
        chunk_overlap: int | None = None,
    ) -> DuplexIndex:
        """Encode passages into `folder` and open the result; see :func:`dupmae.index.writing.build.build_segments`.

        A build that was killed goes on where it was when it is called again with the same model and passages; until it
        is finished, :meth:`open` refuses the folder. A finished index of the same passages is opened as it is.

        Args:
            folder: The index; created if need be.
            encoder: Embeds the passages.
            passages: At least one, ids unique; read once, as a stream.
            model: Folder or name that an opened index loads the encoder from; the encoder's own `path` if not given.
            batch_size: Passages in a forward pass.
            segment_passages: Passages held in memory until they are written as a segment.
            chunk_tokens: Documents that are longer are cut into chunks of so many tokens, as `dupmae index build` does
                (:meth:`DuplexEncoder.chunks`); 0 keeps every passage whole, of which the encoder reads the beginning.
            chunk_overlap: Tokens that a chunk repeats of the one before it; a fifth of `chunk_tokens` if not given.

        Raises:
            DupmaeError: No passages, an id twice, embeddings that cannot be stored, another writer, or a folder that
                holds other files, another model's index, or an index of other passages; or an encoder that was loaded
                from no folder, and no `model`.
        """
        name = encoder.path if model is None else model
        if name is None:
            raise DupmaeError("The encoder does not know where its model is: save it, and name its folder as `model`.")
        folder, found = Path(folder), open_model(name)
        build_segments(
            folder,
            encoder,
            encoder.chunks(passages, chunk_tokens, chunk_overlap),
            model=found,
            batch_size=batch_size,
            segment_passages=segment_passages,
            chunks=chunk_settings(chunk_tokens, chunk_overlap),
            count=lambda: _count(encoder, passages, chunk_tokens, chunk_overlap),
        )
        return cls(folder, encoder)

    @classmethod
    def open(
        cls, folder: Path, *, model: Model | str | None = None, query_encoder: QueryEncoderName | None = None
    ) -> DuplexIndex:
        """Open a finished index.

        Args:
            folder: The index.
            model: The model that built it, where it is no longer where it was.
            query_encoder: What encodes queries: the model in ONNX Runtime (`onnx`) or in PyTorch (`torch`), or the
                table that was made of it (`static`, :func:`dupmae.duplex.distilling.distil_queries`). None takes
                PyTorch if the model is loaded in it, and else ONNX Runtime where that can run it.

        Raises:
            DupmaeError: Not an index, an unfinished one, one of another format, or one with missing or truncated files;
                or the model is not the one that built it.
        """
        index = cls(Path(folder))
        require_finished(index.folder, index.manifest)
        index.query_encoder = query_encoder
        if model is not None:
            found = model if isinstance(model, Model) else open_model(model)
            if found.fingerprint != index.manifest.model_fingerprint:
                raise DupmaeError(f"the model {found.name} is not the one that built the index {folder}")
            index._model = found
        return index

    @property
    def manifest(self) -> Manifest:
        """What the opened state consists of."""
        return self.snapshot.manifest

    def __len__(self) -> int:
        """Number of passages."""
        return self.manifest.passages

    def __iter__(self) -> Iterator[Passage]:
        """Read all passages in the order of their ids, a few at a time."""
        return iter(self.snapshot)

    def __contains__(self, identifier: object) -> bool:
        """Tell whether a passage or a document has an id."""
        return isinstance(identifier, str) and bool(self.snapshot.places([identifier]))

    def get(self, ids: Iterable[str]) -> list[Passage]:
        """Read passages by id.

        Args:
            ids: Passages; or documents that were cut into chunks, each of which gives all its chunks in their order.

        Returns:
            The passages in the order of the ids.

        Raises:
            DupmaeError: A string instead of a list, an id that is not there, or a damaged file.
        """
        refuse_string(ids, "ids")
        ids, snapshot = list(ids), self.snapshot
        places = snapshot.places(ids)
        self._refuse_missing(ids, places)
        return [
            snapshot.segments[number].passages.passage(row) for identifier in ids for number, row in places[identifier]
        ]

    @property
    def encoder(self) -> Encoder:
        """The encoder of the model that built the index, loaded when first asked for; it computes as the index does.

        Raises:
            DupmaeError: The model's files are not those that built the index.
        """
        if self._encoder is None:
            from dupmae.duplex.backends import open_encoder

            backend = self.backend or ("onnx-int8" if self.manifest.precision == "int8" else None)
            self.encoder = cast(Encoder, open_encoder(self._found_model(), backend))
            assert self._encoder is not None
        return self._encoder

    @encoder.setter
    def encoder(self, encoder: Encoder) -> None:
        self._encoder = fitted(encoder, self.folder, self.manifest)

    @property
    def queries(self) -> QueryEncoder:
        """What encodes queries, opened when first asked for, as :attr:`query_encoder` says.

        Raises:
            DupmaeError: The model's files are not those that built the index, or it cannot be opened as is asked for.
        """
        if self._encoder is not None and self.query_encoder in (None, "torch"):
            return self._encoder
        if self._queries is None:
            opened = open_queries(self._found_model(), self.query_encoder)
            if hasattr(opened, "embed_documents"):  # in PyTorch, where the model can do all that an index needs
                self.encoder = cast(Encoder, opened)
                return self.encoder
            self._queries = fitted(opened, self.folder, self.manifest)
        return self._queries

    def _found_model(self) -> Model:
        """Find the model that built the index, and verify that it is the one."""
        if self._model is None:
            path = self.manifest.model_path(self.folder)
            if model_fingerprint(path) != self.manifest.model_fingerprint:
                raise DupmaeError(
                    f"The model {path} is not the one that built the index {self.folder} (or is missing):"
                    " put it back or build the index again."
                )
            self._model = open_model(path)
        return self._model

    def refresh(self) -> None:
        """Move on to the newest committed state of the folder.

        Raises:
            DupmaeError: As :meth:`open`.
        """
        self.snapshot = Snapshot.open(self.folder, self.snapshot)

    def add(
        self,
        passages: Iterable[Passage],
        batch_size: int = 32,
        *,
        chunk_tokens: int | None = None,
        chunk_overlap: int | None = None,
    ) -> int:
        """Encode and add passages, then :meth:`refresh`; a document that is there is replaced with all its chunks.

        What is committed stays if the process is killed, and the same call goes on from there.

        Args:
            passages: Documents, or chunks of them, those of a document one after the other.
            batch_size: Passages in a forward pass.
            chunk_tokens: As :meth:`build`; None cuts as at building.
            chunk_overlap: The same.

        Returns:
            How many documents were given: passages that are no chunks are one each.

        Raises:
            DupmaeError: No passages, an id twice, embeddings that cannot be stored, or another writer.
        """
        if chunk_tokens is None:
            chunk_tokens, built_overlap = self.manifest.cut
            chunk_overlap = built_overlap if chunk_overlap is None else chunk_overlap
        chunks = self.encoder.chunks(passages, chunk_tokens, chunk_overlap)
        total = _count(self.encoder, passages, chunk_tokens, chunk_overlap)
        added, _ = add_passages(self.folder, self.encoder, chunks, batch_size=batch_size, total=total)
        self.refresh()
        return added

    def sync(
        self,
        read: Callable[[], Iterable[Passage]],
        batch_size: int = 32,
        *,
        kept: Callable[[Passage], bool] = lambda passage: False,
        dry_run: bool = False,
    ) -> Synced:
        """Bring the index in step with a corpus, and :meth:`refresh`: add what is new or changed, delete what is gone.

        Texts are compared, not times. What stayed is not touched, and a passage whose title and text the index has
        under another id is not encoded again. Killed at any moment it leaves documents as they were or as they are, and
        the same call goes on. Documents are cut into chunks as at building.

        Args:
            read: Reads the whole corpus, as often as it is called.
            batch_size: Passages in a forward pass.
            kept: Tells of a passage of a document that the corpus lacks whether to leave it alone all the same.
            dry_run: Compare, and change nothing.

        Raises:
            DupmaeError: As :meth:`add`; or the corpus has none of the index's documents.

        Examples:
            >>> from dupmae import DuplexEncoder, DuplexIndex
            >>> from dupmae.corpus import Passage
            >>> encoder, bees = DuplexEncoder("dupmae-small"), Passage("bees", "", "They dance.")
            >>> index = DuplexIndex.build("insects", encoder, [bees, Passage("ants", "", "They march.")])
            >>> print(index.sync(lambda: [bees, Passage("wasps", "", "They sting.")]).difference)
            1 new, 0 changed, 1 gone, 1 as they are
        """
        difference, encoded = compare(self.snapshot, read(), kept), 0
        if dry_run:
            return Synced(difference, 0)
        if wanted := {*difference.new, *difference.changed}:

            def chunks() -> Iterator[Passage]:
                documents = (document for document in read() if document.id in wanted)
                return self.encoder.chunks(documents, *self.manifest.cut)

            total = count_passages(chunks())
            _, encoded = add_passages(self.folder, self.encoder, chunks(), batch_size=batch_size, total=total)
        if difference.gone:
            delete_documents(self.folder, difference.gone)
        self.refresh()
        return Synced(difference, encoded)

    def delete(self, ids: Iterable[str]) -> list[str]:
        """Delete documents, all or none, and :meth:`refresh`; the space comes back with :meth:`compact`.

        Args:
            ids: Of documents, which go with all their chunks; a passage that is no chunk is a document.

        Returns:
            The ids that are not in the index.

        Raises:
            DupmaeError: A string instead of a list, the id of a chunk, or another process is changing the index.
        """
        refuse_string(ids, "ids")
        missing = delete_documents(self.folder, ids)
        self.refresh()
        return missing

    def compact(self) -> None:
        """Give the space of deleted passages back, join small segments, and :meth:`refresh`. Scores do not change.

        Raises:
            DupmaeError: Another process is changing the index, or a segment is damaged.
        """
        compact_segments(self.folder)
        self.refresh()

    def cluster(self) -> None:
        """Make clusters of the dense halves for approximate search with `probes`, and :meth:`refresh`; needs faiss.

        Raises:
            DupmaeError: faiss is not installed, there are no dense halves, or another process is changing the index.
        """
        build_clusters(self.folder)
        self.refresh()

    def search(
        self,
        queries: Sequence[str],
        k: int = 10,
        where: Where | None = None,
        approximate: Approximate | None = None,
        weights: Weights = UNCHANGED,
        group: Group = "document",
    ) -> list[list[Hit]]:
        """Rank the k best documents for each query, best first, ties by id.

        A document scores what the best of its chunks scores, and that chunk is its hit; of equal ones the first.

        Args:
            queries: Texts.
            k: Documents wanted; fewer come back from a smaller index.
            where: Only passages with these metadata: an expression such as `year>=2020 and not lang=de`, several of
                them, or a mapping of fields to the values wanted; see :mod:`dupmae.index.where`.
            approximate: Trade recall for speed; exact if None.
            weights: What each part of the score is multiplied by.
            group: `"none"` ranks passages, so that several may be of one document.

        Raises:
            DupmaeError: A string instead of a list, k < 1, a filter that cannot be read or names an unknown field, the
                model cannot be used, or a file is damaged.
        """
        refuse_string(queries, "queries")
        if not queries:
            return []
        snapshot, encoder = self.snapshot, self.queries
        prepared = _prepared(snapshot, encoder.embed_queries(list(queries)), "all", weights)
        rankings = self._ranked(snapshot, prepared, k, where, approximate, group)
        found = []
        for text, query, ranking in zip(queries, prepared, rankings, strict=True):
            names = words_by_dimension(encoder, text)
            found.append(
                [
                    explain_hit(snapshot.segments[number], row, query, encoder.tokenizer, names, score)
                    for _, score, number, row in ranking
                ]
            )
        return found

    def explain(self, query: str, ids: Sequence[str], weights: Weights = UNCHANGED) -> list[Hit]:
        """Score passages for a query whether it finds them or not.

        Args:
            query: Text.
            ids: Passages, or documents for the best of their chunks, in the order in which they come back.
            weights: What each part of the score is multiplied by.

        Raises:
            DupmaeError: A string instead of a list, an id that is not there, the model cannot be
                used, or a file is damaged.
        """
        refuse_string(ids, "ids")
        snapshot, encoder = self.snapshot, self.queries
        places = snapshot.places(ids)
        self._refuse_missing(ids, places)
        (prepared,) = _prepared(snapshot, encoder.embed_queries([query]), "all", weights)
        hits, names = list[Hit](), words_by_dimension(encoder, query)
        for identifier in ids:
            (number, row), *others = places[identifier]
            snapshot.segments[number].check()
            if others:
                number, row = _best_of(snapshot, prepared, places[identifier])
            hits.append(explain_hit(snapshot.segments[number], row, prepared, encoder.tokenizer, names))
        return hits

    def _refuse_missing(self, ids: Sequence[str], places: Mapping[str, Any]) -> None:
        """Refuse an id that was not found."""
        for identifier in ids:
            if identifier not in places:
                raise DupmaeError(f"The index {self.folder} has no passage {identifier!r}.")

    def search_embeddings(
        self,
        embeddings: DuplexEmbeddings,
        k: int,
        part: Part = "all",
        where: Where | None = None,
        approximate: Approximate | None = None,
        weights: Weights = UNCHANGED,
        group: Group = "document",
    ) -> tuple[list[list[str]], list[list[float]]]:
        """Rank the k best documents for queries that are embedded already.

        Args:
            embeddings: Q queries of the model that built the index.
            k: Documents wanted for each; fewer come back from a smaller index.
            part: `"all"` for the whole score, `"dense"`, `"lexical"` or `"words"` for one of its parts alone.
            where: Only passages with these metadata, as in :meth:`search`.
            approximate: Trade recall for speed; exact if None.
            weights: What each part of the score is multiplied by.
            group: `"none"` ranks passages, so that several may be of one document.

        Returns:
            Ids, of documents or with `"none"` of passages, and scores, one list a query, best first, ties by id.

        Raises:
            DupmaeError: k < 1, embeddings that do not fit the index, a part that it does not have, or a damaged file.
        """
        snapshot = self.snapshot
        queries = _prepared(snapshot, embeddings, part, weights)
        rankings = self._ranked(snapshot, queries, k, where, approximate, group)
        return [[place[0] for place in row] for row in rankings], [[place[1] for place in row] for row in rankings]

    def verify(self) -> None:
        """Read every byte of the index and compare it with the checksums.

        Raises:
            DupmaeError: Names the first damaged file.
        """
        snapshot = self.snapshot
        for segment in bar(snapshot.segments, "Verify", "segments"):
            segment.verify()
        if snapshot.clusters is not None:
            snapshot.clusters.verify()

    def info(self) -> dict[str, Any]:
        """Collect facts about the index: counts, sizes in bytes, the model, the metadata fields."""
        snapshot = self.snapshot
        manifest, segments = snapshot.manifest, snapshot.segments
        sizes = {
            name: sum(entry.files[name]["bytes"] for entry in manifest.segments if name in entry.files)
            for name in (VECTORS_FILE, IDS_FILE, TEXTS_FILE, CHUNKS_FILE)
        }
        stored, words = sum(map(len, segments)), manifest.word_space
        parts = {part: sum(segment.part_bytes[part] for segment in segments) for part in ("dense", "lexical", "word")}
        return {
            "documents": snapshot.documents,
            "passages": manifest.passages,
            "deleted": stored - manifest.passages,
            "segments": len(segments),
            "model": manifest.model_path(self.folder),
            "dense_dimensions": manifest.cls_dimension,
            "vocabulary": manifest.vocabulary_size,
            "terms_per_passage": manifest.top_k,
            "words": "none" if words is None else words.language,
            "precision": manifest.precision or "not kept",
            "chunk_tokens": manifest.cut[0],
            "chunk_overlap": manifest.cut[1],
            "metadata": snapshot.metadata_fields,
            "clusters": "yes" if manifest.clusters else "no",
            "bytes_of_vectors": sizes[VECTORS_FILE],
            "bytes_of_ids": sizes[IDS_FILE],
            "bytes_of_texts": sizes[TEXTS_FILE],
            "bytes_of_chunks": sizes[CHUNKS_FILE],
            "vector_bytes_per_passage": round(sizes[VECTORS_FILE] / max(1, stored)),
        } | {f"{part}_bytes_per_passage": round(size / max(1, stored)) for part, size in parts.items()}

    def _alive(self, snapshot: Snapshot, where: Where | None) -> list[NDArray[np.uint8]]:
        """Mark the passages that may be found: for each segment, 1 for each of them (n,)."""
        if where is None:
            return snapshot.alive
        condition, known = read_filter(where), snapshot.metadata_fields
        for field in fields_of(condition):
            if field not in known:
                listed = ", ".join(known) if known else "none"
                raise DupmaeError(f"The index {self.folder} has no metadata field {field!r}; it has {listed}.")
        return [
            rows * segment.passages.matching(condition)
            for rows, segment in zip(snapshot.alive, snapshot.segments, strict=True)
        ]

    def _ranked(
        self,
        snapshot: Snapshot,
        queries: Sequence[Query],
        k: int,
        where: Where | None,
        approximate: Approximate | None,
        group: Group,
    ) -> list[list[tuple[str, float, int, int]]]:
        """Rank for each query: id, score, segment number and row of the best passages, best first, ties by id.

        Where documents are ranked the id is the document's.
        """
        if k < 1:
            raise DupmaeError(f"k is {k}: ask for at least one passage.")
        if group not in get_args(Group):
            raise DupmaeError(f"group is {group!r}: take 'document' or 'none'.")
        grouped = group == "document" and snapshot.has_chunks
        k = min(k, max(1, sum(map(len, snapshot.segments))))  # what the compiled loops count with is no larger
        alive = self._alive(snapshot, where)
        if approximate is None:
            found = top_k(snapshot.segments, alive, queries, k, grouped=grouped)
        else:
            found = approximate_top_k(snapshot, alive, queries, k, approximate, grouped=grouped)
        return [snapshot.ranked(one, grouped=grouped)[:k] for one in found]


def _count(encoder: Encoder, passages: Iterable[Passage], tokens: int, overlap: int | None) -> int | None:
    """Count the chunks of passages, to tell the time left; None of passages that can be read but once."""
    if not isinstance(passages, Sized):
        return None
    return count_passages(encoder.chunks(passages, tokens, overlap)) if tokens else len(passages)


def words_by_dimension(encoder: QueryEncoder, query: str) -> dict[int, str]:
    """Name the words of a query by their dimensions; of an encoder without words there are none."""
    space = word_space_of(encoder)
    return {} if space is None else space.names([query])


def _best_of(snapshot: Snapshot, query: Query, places: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Find the best of a document's passages, each given by its segment's number and its row."""
    rows: dict[int, list[int]] = {}
    for number, row in places:
        rows.setdefault(number, []).append(row)
    sorted_rows = {number: np.array(sorted(found), np.int64) for number, found in rows.items()}
    best = best_documents(snapshot.segments, [rescore(snapshot.segments, query, sorted_rows)], 1)
    return int(best.segments[0]), int(best.rows[0])


def _prepared(snapshot: Snapshot, embeddings: DuplexEmbeddings, part: Part, weights: Weights) -> list[Query]:
    """Lay queries out for the loops, their words as rare as they are in the index."""
    return with_rarity(snapshot, prepare_queries(embeddings, snapshot.manifest, part, weights))
