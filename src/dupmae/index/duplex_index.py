"""The index as its users see it: build, open, search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dupmae.corpus import Passage
from dupmae.errors import DupmaeError
from dupmae.index.build import SEGMENT_PASSAGES, Encoder, build_segments
from dupmae.index.kernels import decode_halves, weights_of
from dupmae.index.manifest import Manifest
from dupmae.index.search import Part, Queries, prepare_queries, top_k
from dupmae.index.segments import Segment, verify_segment
from dupmae.models import model_fingerprint

if TYPE_CHECKING:
    from dupmae.duplex.embeddings import DuplexEmbeddings


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found for a query, with the reasons."""

    id: str
    """The passage's id."""
    score: float
    """Eq. 12, summed in single precision."""
    cls_score: float
    """Its first term: what the dense halves contribute."""
    ot_score: float
    """Its second term: what shared vocabulary entries contribute."""
    matches: list[tuple[str, float]]
    """The shared vocabulary entries with their contributions to `ot_score`, heaviest first."""
    title: str
    """The passage's title; may be empty."""
    text: str
    """The passage's text."""


class DuplexIndex:
    """An index folder opened for exact search by Eq. 12.

    Use :meth:`build` or :meth:`open`. Opening reads the manifest and maps the segments; passages are read only for
    hits, and the encoder is loaded when the first text query comes.
    """

    def __init__(self, folder: Path, manifest: Manifest, encoder: Encoder | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        self._encoder = encoder
        self._segments = [Segment(folder, entry) for entry in manifest.segments]
        self._first_rows = np.cumsum([0, *(segment.size for segment in self._segments)])

    @classmethod
    def build(
        cls,
        folder: Path,
        encoder: Encoder,
        passages: Iterable[Passage],
        *,
        model: str,
        batch_size: int = 32,
        segment_passages: int = SEGMENT_PASSAGES,
    ) -> DuplexIndex:
        """Encode passages into `folder` and open the result; see :func:`dupmae.index.build.build_segments`.

        A build that was killed goes on from its last finished segment when it is called again with the same model and
        passages; until it is finished, :meth:`open` refuses the folder. A finished index of the same passages is
        opened as it is.

        Args:
            folder: The index; created if need be.
            encoder: Embeds the passages.
            passages: At least one, ids unique; read once, as a stream.
            model: Folder or name the encoder was loaded from; :meth:`search` loads it from there.
            batch_size: Passages in a forward pass.
            segment_passages: Passages encoded between two commits; bounds the memory needed.

        Raises:
            DupmaeError: No passages, an id twice, embeddings that cannot be stored, or a folder that holds other files,
                another model's index, or an index of other passages.
        """
        folder = Path(folder)
        build_segments(folder, encoder, passages, model=model, batch_size=batch_size, segment_passages=segment_passages)
        return cls(folder, Manifest.read(folder), encoder)

    @classmethod
    def open(cls, folder: Path) -> DuplexIndex:
        """Open a finished index.

        Raises:
            DupmaeError: Not an index, an unfinished one, one of a newer format, or one with missing or truncated files.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        if not manifest.complete:
            raise DupmaeError(
                f"The index {folder} is unfinished ({manifest.passages} passages so far):"
                " run the command that builds it again, it goes on from there."
            )
        return cls(folder, manifest)

    def __len__(self) -> int:
        """Number of passages."""
        return self.manifest.passages

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of the model that built the index, loaded when first asked for.

        Raises:
            DupmaeError: The model's files are not those that built the index.
        """
        if self._encoder is not None:
            return self._encoder
        path = self.manifest.model_path(self.folder)
        if model_fingerprint(path) != self.manifest.model_fingerprint:
            raise DupmaeError(
                f"The model {path} is not the one that built the index {self.folder} (or is missing):"
                " put it back or build the index again."
            )
        from dupmae.duplex import DuplexEncoder

        return cast(Encoder, DuplexEncoder(path))

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[Hit]]:
        """The k best passages of each query, best first, ties by id.

        Args:
            queries: Texts.
            k: Passages wanted; fewer come back from a smaller index.

        Raises:
            DupmaeError: k < 1, or the model cannot be used.
        """
        if not queries:
            return []
        prepared = prepare_queries(self.encoder.embed_queries(list(queries)), self.manifest, "both")
        scores, ranks = self._ranked(prepared, k)
        return [
            [self._hit(prepared[row : row + 1], int(rank), float(score)) for rank, score in zip(*best, strict=True)]
            for row, best in enumerate(zip(ranks, scores, strict=True))
        ]

    def search_embeddings(
        self, embeddings: DuplexEmbeddings, k: int, part: Part = "both"
    ) -> tuple[list[list[str]], list[list[float]]]:
        """The k best passages of queries that are embedded already.

        Args:
            embeddings: Q queries of the model that built the index.
            k: Passages wanted for each; fewer come back from a smaller index.
            part: `"both"` for Eq. 12, `"cls"` or `"ot"` for one of its terms alone.

        Returns:
            Ids and scores, one list a query, best first, ties by id.

        Raises:
            DupmaeError: k < 1, or embeddings that do not fit the index.
        """
        scores, ranks = self._ranked(prepare_queries(embeddings, self.manifest, part), k)
        names = self._ids.take(pa.array(self._order[ranks.ravel()])).to_pylist()
        width = ranks.shape[1]
        return [names[row * width : (row + 1) * width] for row in range(len(ranks))], scores.tolist()

    def verify(self) -> None:
        """Read every byte of the index and compare it with the checksums.

        Raises:
            DupmaeError: Names the first damaged file.
        """
        for entry in self.manifest.segments:
            verify_segment(self.folder, entry)

    @cached_property
    def _ids(self) -> pa.ChunkedArray:
        """All ids, memory-mapped, in the order of the segments."""
        return pa.chunked_array([segment.passages.column("id") for segment in self._segments])

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """Passage numbers in the order of their ids, which breaks ties (N,)."""
        return np.asarray(pc.sort_indices(self._ids)).astype(np.int64)

    @cached_property
    def _ranks(self) -> NDArray[np.int64]:
        """Place of each passage in that order (N,)."""
        ranks = np.empty_like(self._order)
        ranks[self._order] = np.arange(len(ranks))
        return ranks

    def _ranked(self, queries: Queries, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and ranks (Q, min(k, N)) of the best passages."""
        if k < 1:
            raise DupmaeError(f"k is {k}: ask for at least one passage.")
        return top_k(self._segments, self._ranks, queries, min(k, len(self)))

    def _hit(self, query: Queries, rank: int, score: float) -> Hit:
        """Explain the score of one passage for one query."""
        number = int(self._order[rank])
        place = int(np.searchsorted(self._first_rows, number, side="right")) - 1
        segment, row = self._segments[place], number - int(self._first_rows[place])
        cls = np.empty((1, query.cls.shape[1]), np.float32)
        decode_halves(segment.cls_bits[row : row + 1], cls)
        stored = weights_of(row, query.ids, segment.starts, segment.documents, segment.weights)
        parts = query.weights.astype(np.float64) * stored * segment.scales[row]  # (M,)
        shared = np.flatnonzero(stored)
        heaviest = shared[np.argsort(-parts[shared], kind="stable")]
        tokens = self.encoder.tokenizer.convert_ids_to_tokens(query.ids[heaviest].tolist())
        passage = segment.passage(row)
        return Hit(
            id=passage.id,
            score=score,
            cls_score=float(query.cls[0].astype(np.float64) @ cls[0]),
            ot_score=float(parts[shared].sum()),
            matches=[(token, float(parts[entry])) for token, entry in zip(tokens, heaviest, strict=True)],
            title=passage.title,
            text=passage.text,
        )
