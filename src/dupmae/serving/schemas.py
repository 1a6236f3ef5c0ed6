"""The JSON that requests and answers are made of, as pydantic models; FastAPI checks and describes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Factor = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    """Refuses fields that it does not know: a misspelt one would be ignored otherwise."""

    model_config = ConfigDict(extra="forbid")


class PartWeights(_Strict):
    """What each part of the score is multiplied by; 0 leaves it out."""

    dense: Factor = 1.0
    lexical: Factor = 1.0
    words: Factor = 1.0


class _Asked(_Strict):
    """What searches and explanations have in common."""

    index: Text | None = Field(None, description="Its name, as /indexes lists it; not needed where there is one.")
    where: str | list[str] | None = Field(
        None,
        description='Only passages with these metadata, such as "year>=2020 and lang in (en, de)"; several all count.',
    )
    group: Literal["document", "none"] = Field(
        "document", description="Rank documents, each by the best of its chunks, or every chunk by itself."
    )
    weights: PartWeights = PartWeights()


class SearchRequest(_Asked):
    """Queries, and what to find for each."""

    queries: list[Text] = Field(min_length=1, examples=[["how do lighthouses work?"]])
    k: int = Field(10, ge=1, description="Hits wanted for each query.")
    explain: bool = Field(False, description="Give each query's explanation, as /explain does, for its hits.")


class ExplainRequest(_Asked):
    """A query whose hits are to be explained."""

    query: Text
    k: int = Field(3, ge=1, description="Documents from the top of each ranking.")
    ids: list[Text] = Field(default_factory=list, description="Further passages or documents, found or not.")


class Contribution(BaseModel):
    """A term and what it adds to a score."""

    term: str
    contribution: float


class WordContribution(BaseModel):
    """A word and what it adds to a score."""

    word: str
    contribution: float


class HitRecord(BaseModel):
    """A hit, as `dupmae search --json` prints it."""

    query: str
    rank: int
    id: str
    score: float
    dense_score: float
    lexical_score: float
    word_score: float
    matches: list[Contribution]
    words: list[WordContribution]
    title: str
    text: str
    metadata: dict[str, str | int | float | bool]
    document: str
    headings: list[str]
    start: int
    end: int
    snippet: str
    snippet_start: int
    highlights: list[tuple[int, int]] = Field(description="Where words of the query stand, in the document's text.")


class QueryResult(BaseModel):
    """The hits of one query, best first."""

    query: str
    hits: list[HitRecord]
    explanation: dict[str, Any] | None = None


class SearchAnswer(BaseModel):
    """The results of all queries, in their order."""

    index: str
    results: list[QueryResult]


class PassageRecord(BaseModel):
    """A stored passage: a document, or a chunk of one."""

    id: str
    title: str
    text: str
    metadata: dict[str, str | int | float | bool]
    headings: list[str]
    start: int
    end: int


class DocumentAnswer(BaseModel):
    """A document: its passages in their order."""

    index: str
    id: str
    passages: list[PassageRecord]


class IndexRecord(BaseModel):
    """An index that is served."""

    name: str
    documents: int
    passages: int
    metadata: list[str]
    values: dict[str, list[str | int | float | bool]] = Field(description="Of metadata fields that have few.")
    parts: list[Literal["dense", "lexical", "words"]]


class LimitsRecord(BaseModel):
    """What a search may ask for at most."""

    queries: int
    characters: int = Field(description="Of a query.")
    k: int
    hits: int = Field(description="Of all queries of a request together.")
    explained: int = Field(description="Hits of a request that are explained.")


class IndexesAnswer(BaseModel):
    """All of them, and what may be asked of each."""

    indexes: list[IndexRecord]
    limits: LimitsRecord


class _Cut(_Strict):
    """What text-embeddings-inference asks of long texts."""

    truncate: Literal[True] | None = Field(None, description="Longer texts are cut at the model's length, always.")
    truncation_direction: Literal["right", "Right"] | None = None


class EmbedRequest(_Cut):
    """Texts to embed, as text-embeddings-inference takes them."""

    inputs: Text | list[Text]
    prompt_name: Literal["query", "document"] | None = Field(None, description="`query` or, by default, `document`.")


class EmbedDenseRequest(EmbedRequest):
    """The same for dense vectors."""

    normalize: bool | None = Field(
        None, description="Scale vectors to length 1; by default they are not, since the scores are inner products."
    )
    dimensions: int | None = Field(None, description="As many as the model's dense half has, or none.")


class SparseValue(BaseModel):
    """One dimension of a sparse vector."""

    index: int
    value: float


class RerankRequest(_Cut):
    """A query and texts to rank for it, as text-embeddings-inference takes them."""

    query: Text
    texts: list[Text] = Field(min_length=1)
    return_text: bool = False
    raw_scores: bool | None = Field(None, description="Changes nothing: scores are inner products either way.")


class Rank(BaseModel):
    """A text's place among those given, and its duplex score."""

    index: int
    score: float
    text: str | None = None


class OpenAIRequest(_Strict):
    """Texts to embed, as OpenAI's interface takes them."""

    input: Text | list[Text]
    model: Text | None = Field(None, description="Stands in the answer as it is given: there is one model.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="As many as the model's dense half has, or none.")
    user: Text | None = None


class OpenAIEmbedding(BaseModel):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class OpenAIAnswer(BaseModel):
    """Vectors, as OpenAI's interface gives them."""

    object: Literal["list"] = "list"
    model: str
    data: list[OpenAIEmbedding]
    usage: dict[str, int]


class Failure(BaseModel):
    """Why a request was refused or failed."""

    error: str
    error_type: str
