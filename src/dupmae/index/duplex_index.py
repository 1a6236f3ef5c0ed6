"""The index as its users see it: build, open, change, search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dupmae.corpus import Passage
from dupmae.duplex.embeddings import DuplexEmbeddings
from dupmae.errors import DupmaeError, refuse_string
from dupmae.index.hits import Hit, Where, wanted_values
from dupmae.index.scoring.approximate import Approximate, approximate_top_k
from dupmae.index.scoring.exact import top_k
from dupmae.index.scoring.explaining import explain_hit
from dupmae.index.scoring.query import UNCHANGED, Part, Query, Weights, prepare_queries
from dupmae.index.scoring.snapshot import Snapshot
from dupmae.index.scoring.words import with_rarity
from dupmae.index.storage.manifest import MAX_PASSAGES, Manifest
from dupmae.index.storage.passages import IDS_FILE, TEXTS_FILE
from dupmae.index.storage.segments import VECTORS_FILE
from dupmae.index.writing.build import add_passages, build_segments
from dupmae.index.writing.changes import build_clusters, compact_segments, delete_passages, require_finished
from dupmae.index.writing.encoding import Encoder, fitted, word_space_of
from dupmae.models import model_fingerprint, open_model


class DuplexIndex:
    """An index folder, opened for exact search by Eq. 12 and, if its model has them, whole words.

    Use :meth:`build` or :meth:`open`. Opening maps one committed state of the folder, which later changes by other
    processes do not touch (:meth:`refresh` moves on to the newest); texts are read only for hits, and the encoder is
    loaded when the first text comes. Threads may share an index: each search keeps to the state it began with.

    Example:
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
        self._encoder = None if encoder is None else fitted(encoder, folder, self.manifest)

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

        Raises:
            DupmaeError: No passages, an id twice, embeddings that cannot be stored, another writer, or a folder that
                holds other files, another model's index, or an index of other passages; or an encoder that was loaded
                from no folder, and no `model`.
        """
        name = encoder.path if model is None else model
        if name is None:
            raise DupmaeError("The encoder does not know where its model is: save it, and name its folder as `model`.")
        folder, found = Path(folder), open_model(name)
        build_segments(folder, encoder, passages, model=found, batch_size=batch_size, segment_passages=segment_passages)
        return cls(folder, encoder)

    @classmethod
    def open(cls, folder: Path) -> DuplexIndex:
        """Open a finished index.

        Raises:
            DupmaeError: Not an index, an unfinished one, one of another format, or one with missing or truncated files.
        """
        index = cls(Path(folder))
        require_finished(index.folder, index.manifest)
        return index

    @property
    def manifest(self) -> Manifest:
        """What the opened state consists of."""
        return self.snapshot.manifest

    def __len__(self) -> int:
        """Number of passages."""
        return self.manifest.passages

    @property
    def encoder(self) -> Encoder:
        """The encoder of the model that built the index, loaded when first asked for; it computes as the index does.

        Raises:
            DupmaeError: The model's files are not those that built the index.
        """
        if self._encoder is None:
            path = self.manifest.model_path(self.folder)
            if model_fingerprint(path) != self.manifest.model_fingerprint:
                raise DupmaeError(
                    f"The model {path} is not the one that built the index {self.folder} (or is missing):"
                    " put it back or build the index again."
                )
            from dupmae.duplex import DuplexEncoder

            self.encoder = cast(Encoder, DuplexEncoder(path))
            assert self._encoder is not None
        return self._encoder

    @encoder.setter
    def encoder(self, encoder: Encoder) -> None:
        self._encoder = fitted(encoder, self.folder, self.manifest)

    def refresh(self) -> None:
        """Move on to the newest committed state of the folder.

        Raises:
            DupmaeError: As :meth:`open`.
        """
        self.snapshot = Snapshot.open(self.folder, self.snapshot)

    def add(self, passages: Iterable[Passage], batch_size: int = 32) -> int:
        """Encode and add passages; one whose id is there takes that one's place. Then :meth:`refresh`.

        What is committed stays if the process is killed, and the same call goes on from there.

        Returns:
            How many passages were given.

        Raises:
            DupmaeError: No passages, an id twice, embeddings that cannot be stored, or another writer.
        """
        added = add_passages(self.folder, self.encoder, passages, batch_size=batch_size)
        self.refresh()
        return added

    def delete(self, ids: Iterable[str]) -> list[str]:
        """Delete passages, all or none, and :meth:`refresh`; the space comes back with :meth:`compact`.

        Returns:
            The ids that are not in the index.

        Raises:
            DupmaeError: A string instead of a list, or another process is changing the index.
        """
        refuse_string(ids, "ids")
        missing = delete_passages(self.folder, ids)
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
    ) -> list[list[Hit]]:
        """Rank the k best passages for each query, best first, ties by id.

        Args:
            queries: Texts.
            k: Passages wanted; fewer come back from a smaller index.
            where: Only passages with these metadata.
            approximate: Trade recall for speed; exact if None.
            weights: What each part of the score is multiplied by.

        Raises:
            DupmaeError: A string instead of a list, k < 1, the model cannot be used, or a file
                is damaged.
        """
        refuse_string(queries, "queries")
        if not queries:
            return []
        snapshot, tokenizer = self.snapshot, self.encoder.tokenizer
        prepared = _prepared(snapshot, self.encoder.embed_queries(list(queries)), "all", weights)
        rankings = self._ranked(snapshot, prepared, k, where, approximate)
        found = []
        for text, query, ranking in zip(queries, prepared, rankings, strict=True):
            names = words_by_dimension(self.encoder, text)
            found.append(
                [
                    explain_hit(snapshot.segments[number], row, query, tokenizer, names, identifier, score)
                    for identifier, score, number, row in ranking
                ]
            )
        return found

    def explain(self, query: str, ids: Sequence[str], weights: Weights = UNCHANGED) -> list[Hit]:
        """Score passages for a query whether it finds them or not.

        Args:
            query: Text.
            ids: The passages, in the order in which they come back.
            weights: What each part of the score is multiplied by.

        Raises:
            DupmaeError: A string instead of a list, an id that is not there, the model cannot be
                used, or a file is damaged.
        """
        refuse_string(ids, "ids")
        snapshot = self.snapshot
        places = snapshot.find(list(ids))
        if missing := [identifier for identifier in ids if identifier not in places]:
            raise DupmaeError(f"The index {self.folder} has no passage {missing[0]!r}.")
        (prepared,) = _prepared(snapshot, self.encoder.embed_queries([query]), "all", weights)
        hits, tokenizer, names = [], self.encoder.tokenizer, words_by_dimension(self.encoder, query)
        for identifier in ids:
            number, row = places[identifier]
            snapshot.segments[number].check()
            hits.append(explain_hit(snapshot.segments[number], row, prepared, tokenizer, names, identifier))
        return hits

    def search_embeddings(
        self,
        embeddings: DuplexEmbeddings,
        k: int,
        part: Part = "all",
        where: Where | None = None,
        approximate: Approximate | None = None,
        weights: Weights = UNCHANGED,
    ) -> tuple[list[list[str]], list[list[float]]]:
        """Rank the k best passages for queries that are embedded already.

        Args:
            embeddings: Q queries of the model that built the index.
            k: Passages wanted for each; fewer come back from a smaller index.
            part: `"all"` for the whole score, `"dense"`, `"lexical"` or `"words"` for one of its parts alone.
            where: Only passages with these metadata.
            approximate: Trade recall for speed; exact if None.
            weights: What each part of the score is multiplied by.

        Returns:
            Ids and scores, one list a query, best first, ties by id.

        Raises:
            DupmaeError: k < 1, embeddings that do not fit the index, a part that it does not have, or a damaged file.
        """
        snapshot = self.snapshot
        queries = _prepared(snapshot, embeddings, part, weights)
        rankings = self._ranked(snapshot, queries, k, where, approximate)
        return [[place[0] for place in row] for row in rankings], [[place[1] for place in row] for row in rankings]

    def verify(self) -> None:
        """Read every byte of the index and compare it with the checksums.

        Raises:
            DupmaeError: Names the first damaged file.
        """
        snapshot = self.snapshot
        for segment in snapshot.segments:
            segment.verify()
        if snapshot.clusters is not None:
            snapshot.clusters.verify()

    def info(self) -> dict[str, Any]:
        """Collect facts about the index: counts, sizes in bytes, the model, the metadata fields."""
        snapshot = self.snapshot
        manifest, segments = snapshot.manifest, snapshot.segments
        sizes = {
            name: sum(entry.files[name]["bytes"] for entry in manifest.segments)
            for name in (VECTORS_FILE, IDS_FILE, TEXTS_FILE)
        }
        stored, words = sum(map(len, segments)), manifest.word_space
        parts = {part: sum(segment.part_bytes[part] for segment in segments) for part in ("dense", "lexical", "word")}
        return {
            "passages": manifest.passages,
            "deleted": stored - manifest.passages,
            "segments": len(segments),
            "model": manifest.model_path(self.folder),
            "dense_dimensions": manifest.cls_dimension,
            "vocabulary": manifest.vocabulary_size,
            "terms_per_passage": manifest.top_k,
            "words": "none" if words is None else words.language,
            "precision": manifest.precision or "not kept",
            "metadata": snapshot.metadata_fields,
            "clusters": "yes" if manifest.clusters else "no",
            "bytes_of_vectors": sizes[VECTORS_FILE],
            "bytes_of_ids": sizes[IDS_FILE],
            "bytes_of_texts": sizes[TEXTS_FILE],
            "vector_bytes_per_passage": round(sizes[VECTORS_FILE] / max(1, stored)),
        } | {f"{part}_bytes_per_passage": round(size / max(1, stored)) for part, size in parts.items()}

    def _alive(self, snapshot: Snapshot, where: Where | None) -> list[NDArray[np.uint8]]:
        """Mark the passages that may be found: for each segment, 1 for each of them (n,)."""
        alive, segments = snapshot.alive, snapshot.segments
        for field, wanted in (where or {}).items():
            values = wanted_values(wanted)
            if field not in snapshot.metadata_fields:
                known = ", ".join(snapshot.metadata_fields) or "none"
                raise DupmaeError(f"The index {self.folder} has no metadata field {field!r}; it has {known}.")
            alive = [
                rows * segment.passages.matching(field, values) for rows, segment in zip(alive, segments, strict=True)
            ]
        return alive

    def _ranked(
        self,
        snapshot: Snapshot,
        queries: Sequence[Query],
        k: int,
        where: Where | None,
        approximate: Approximate | None,
    ) -> list[list[tuple[str, float, int, int]]]:
        """Rank for each query: id, score, segment number and row of the best passages, best first, ties by id."""
        if k < 1:
            raise DupmaeError(f"k is {k}: ask for at least one passage.")
        k = min(k, max(1, sum(map(len, snapshot.segments))))  # what the compiled loops count with is no larger
        alive = self._alive(snapshot, where)
        if approximate is None:
            found = top_k(snapshot.segments, alive, queries, k)
        else:
            found = approximate_top_k(snapshot, alive, queries, k, approximate)
        return [snapshot.by_id(one)[:k] for one in found]


def words_by_dimension(encoder: Encoder, query: str) -> dict[int, str]:
    """Name the words of a query by their dimensions; of an encoder without words there are none."""
    space = word_space_of(encoder)
    return {} if space is None else space.names([query])


def _prepared(snapshot: Snapshot, embeddings: DuplexEmbeddings, part: Part, weights: Weights) -> list[Query]:
    """Lay queries out for the loops, their words as rare as they are in the index."""
    return with_rarity(snapshot, prepare_queries(embeddings, snapshot.manifest, part, weights))
