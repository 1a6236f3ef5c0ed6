"""Model folders: built, saved, loaded with and without this package, refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from naive_duplex import V
from safetensors.torch import load_file
from sentence_transformers import SparseEncoder
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizer,
    T5Config,
    T5ForConditionalGeneration,
)

from dupmae.config import DuplexConfig
from dupmae.corpus import read_passages
from dupmae.duplex import DuplexEncoder, DuplexPooling, pooling
from dupmae.duplex.pooling import CODE_FILE, FORMER_KEYS
from dupmae.errors import DupmaeError

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1"
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))

WITHOUT_DUPMAE = """
import json, sys

class NoDupmae:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "dupmae":
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, NoDupmae())
from sentence_transformers import SparseEncoder

folder, *texts = sys.argv[1:]
model = SparseEncoder(folder, trust_remote_code=True, device="cpu")
scores = model.similarity(model.encode_query(texts), model.encode_document(texts)).tolist()
print(json.dumps({"scores": scores, "dupmae": "dupmae" in sys.modules}))
"""


def scores(model: SparseEncoder, texts: list[str]) -> np.ndarray:
    return model.similarity(model.encode_query(texts), model.encode_document(texts)).numpy()


def scores_without_dupmae(folder: Path, texts: list[str]) -> list[list[float]]:
    """Scores of the texts as queries and as documents by plain sentence-transformers, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DUPMAE, str(folder), *texts],
        env=os.environ | {"HF_MODULES_CACHE": str(folder.parent / "modules")},
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert answer["dupmae"] is False
    return answer["scores"]  # type: ignore[no-any-return]


@pytest.fixture
def encoder(make_encoder) -> DuplexEncoder:
    return make_encoder()


# Saving and loading


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dense_dimension": 0, "lexical_projection": "linear", "lexical_activation": "none", "dense_pooling": "mean"},
        {"top_k": 0, "normalize": False},
        {"query_terms": "tokens", "document_norm": "own"},
    ],
)
def test_saved_encoder_gives_the_same_vectors_when_loaded(settings, make_encoder, texts, tmp_path):
    encoder = make_encoder(**settings)
    encoder.save_pretrained(str(tmp_path / "model"))
    loaded = DuplexEncoder(str(tmp_path / "model"), device="cpu")
    assert isinstance(loaded, DuplexEncoder)
    for name in ("encode_query", "encode_document", "encode"):
        assert torch.equal(getattr(loaded, name)(texts).to_dense(), getattr(encoder, name)(texts).to_dense())
    assert loaded.pooling.get_config_dict() == encoder.pooling.get_config_dict()


def test_plain_sentence_transformers_gives_the_same_scores(encoder, texts, tmp_path):
    encoder.save_pretrained(str(tmp_path / "model"))
    plain = SparseEncoder(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    assert type(plain) is SparseEncoder
    np.testing.assert_array_equal(scores(plain, texts), scores(encoder, texts))


def test_what_plain_sentence_transformers_saves_again_it_loads_again(encoder, texts, tmp_path):
    encoder.save_pretrained(str(tmp_path / "model"))
    SparseEncoder(str(tmp_path / "model"), trust_remote_code=True, device="cpu").save(str(tmp_path / "again"))
    again = SparseEncoder(str(tmp_path / "again"), trust_remote_code=True, device="cpu")
    np.testing.assert_array_equal(scores(again, texts), scores(encoder, texts))


def test_batches_stay_padded_wherever_the_model_is_loaded(encoder, tmp_path):
    encoder.save_pretrained(str(tmp_path / "model"))
    plain = SparseEncoder(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    assert plain[0].unpad_inputs is DuplexEncoder(str(tmp_path / "model"))[0].unpad_inputs is False


def test_folder_gives_the_same_scores_where_dupmae_is_not_installed(encoder, texts, tmp_path):
    encoder.save_pretrained(str(tmp_path / "model"))
    found = scores_without_dupmae(tmp_path / "model", [*texts, ""])
    np.testing.assert_allclose(found, scores(encoder, [*texts, ""]), rtol=1e-4, atol=1e-5)


def test_saving_again_replaces_the_older_model(encoder, tmp_path):
    encoder.save_pretrained(str(tmp_path / "model"))
    encoder.pooling.cls_log_scale.data.fill_(2.5)
    encoder.save_pretrained(str(tmp_path / "model"))
    assert DuplexEncoder(str(tmp_path / "model")).pooling.cls_log_scale.item() == 2.5
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_saving_into_an_empty_folder_works(encoder, tmp_path):
    encoder.save_pretrained(str(tmp_path))
    assert (tmp_path / "modeling_duplex.py").is_file()


def test_saving_over_something_else_is_refused_and_leaves_it_alone(encoder, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(DupmaeError, match="holds something else"):
        encoder.save_pretrained(str(tmp_path))
    with pytest.raises(DupmaeError, match="holds something else"):
        encoder.save_pretrained(str(tmp_path / "thesis.txt"))
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["years of work"]


def test_weights_are_safetensors_and_nothing_is_pickled(encoder, tmp_path):
    encoder.save_pretrained(str(tmp_path / "model"), safe_serialization=False)
    names = {path.suffix for path in (tmp_path / "model" / "1_DuplexPooling").iterdir()}
    assert names == {".json", ".safetensors"}


def test_an_encoder_remembers_the_folder_it_was_loaded_from_or_saved_to(encoder, bert_folder, tmp_path, monkeypatch):
    assert encoder.path is None
    encoder.save_pretrained(str(tmp_path / "model"))
    assert encoder.path == str(tmp_path / "model")
    with pytest.raises(DupmaeError, match="holds something else"):
        encoder.save(str(bert_folder))
    assert encoder.path == str(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert DuplexEncoder("model").path == "model"
    loaded = DuplexEncoder(str(tmp_path / "model"))
    loaded.save(tmp_path / "again")
    assert loaded.path == str(tmp_path / "again")


# Folders of version 0.1


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """A model that version 0.1 saved."""
    shutil.unpack_archive(GOLDEN / "files.tar.xz", tmp_path / "golden", filter="data")
    settings = json.loads((tmp_path / "golden" / "model" / "1_DuplexPooling" / "config.json").read_text("utf-8"))
    assert settings.keys() >= FORMER_KEYS.keys()
    return tmp_path / "golden" / "model"


def test_a_folder_of_0_1_gives_through_the_package_what_its_own_code_gives(former, texts):
    plain = SparseEncoder(str(former), trust_remote_code=True, device="cpu")
    encoder = DuplexEncoder(str(former), device="cpu")
    assert type(plain[-1]) is not type(encoder[-1]) is DuplexPooling
    texts = [*EXPECTED["queries"], *texts]
    for name in ("encode_query", "encode_document"):
        vectors, expected = (getattr(model, name)(texts).to_dense() for model in (encoder, plain))
        torch.testing.assert_close(vectors, expected, atol=1e-6, rtol=1e-6)
    assert plain[-1].state_dict().keys() == encoder[-1].state_dict().keys()


def test_the_code_of_today_reads_a_folder_of_0_1_where_dupmae_is_not_installed(former, tmp_path):
    shutil.copy(pooling.__file__, former / CODE_FILE)
    passages = [passage.full_text for passage in read_passages(tmp_path / "golden" / "data" / "corpus.jsonl")]
    queries = EXPECTED["queries"]
    found = scores_without_dupmae(former, [*queries, *passages])
    expected = EXPECTED["model"]["scores"]
    np.testing.assert_allclose([row[len(queries) :] for row in found[: len(queries)]], expected, rtol=1e-4, atol=1e-5)


# Building from an encoder


def test_a_checkpoint_pretrained_for_another_projection_is_refused(bert_folder, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(bert_folder, checkpoint)
    (checkpoint / "dupmae.json").write_text(json.dumps({"lexical_projection": "linear"}), encoding="utf-8")
    DuplexEncoder.from_encoder(str(checkpoint), DuplexConfig(top_k=10, lexical_projection="linear"))
    with pytest.raises(DupmaeError, match=r"pre-trained with lexical_projection linear, but .* asks for mlm_head"):
        DuplexEncoder.from_encoder(str(checkpoint), DuplexConfig(top_k=10))


def test_lexical_half_starts_from_the_checkpoints_own_head(bert_folder):
    encoder = DuplexEncoder.from_encoder(str(bert_folder), DuplexConfig(top_k=10))
    head = BertForMaskedLM.from_pretrained(bert_folder).cls.predictions
    ours = encoder.pooling.state_dict()
    for name, tensor in {
        "transform.0.weight": head.transform.dense.weight,
        "transform.0.bias": head.transform.dense.bias,
        "transform.2.weight": head.transform.LayerNorm.weight,
        "transform.2.bias": head.transform.LayerNorm.bias,
        "output.weight": head.decoder.weight,
        "output.bias": head.decoder.bias,
    }.items():
        assert torch.equal(ours[name], tensor), name
    assert head.decoder.bias.abs().sum() > 0
    assert encoder.pooling.layer_norm_eps == head.transform.LayerNorm.eps
    torch.testing.assert_close(encoder.pooling.cls_log_scale.exp(), torch.tensor(20.0))
    torch.testing.assert_close(encoder.pooling.ot_log_scale.exp(), torch.tensor(DuplexConfig().lexical_scale))


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_untrained_lexical_half_pools_the_logits_of_the_masked_language_model(
    family, bert_config, write_tokenizer, texts, tmp_path
):
    sizes = {"vocab_size": V, "pad_token_id": 0, "max_position_embeddings": 64, "initializer_range": 0.2}
    if family == "bert":
        model = BertForMaskedLM(bert_config)
    elif family == "distilbert":
        model = DistilBertForMaskedLM(DistilBertConfig(**sizes, dim=32, n_layers=1, n_heads=2, hidden_dim=32))
    else:
        widths = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        model = RobertaForMaskedLM(RobertaConfig(**sizes, **widths))
    model.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    config = DuplexConfig(top_k=10, lexical_activation="none", normalize=False, query_terms="logits", lexical_scale=1.0)
    encoder = DuplexEncoder.from_encoder(str(tmp_path), config)
    features = encoder.preprocess([texts[0]], task="query")
    with torch.no_grad():
        logits = model.eval()(input_ids=features["input_ids"].cpu()).logits[0, 1:-1].amax(dim=0)
    pooled = encoder.encode_query(texts[0]).to_dense()[:V].cpu()
    torch.testing.assert_close(pooled[5:], logits[5:], atol=1e-4, rtol=1e-4)


def test_checkpoint_without_a_head_gets_one_that_starts_at_the_input_embeddings(embedder_folder, texts):
    encoder = DuplexEncoder.from_encoder(
        str(embedder_folder), DuplexConfig(top_k=10, dense_pooling="mean", words="none")
    )
    embeddings = BertModel.from_pretrained(embedder_folder).get_input_embeddings().weight
    assert torch.equal(encoder.pooling.output.weight.cpu(), embeddings)
    assert encoder.encode_document(texts[0]).to_dense()[:V].count_nonzero() == 10


def test_full_width_dense_half_starts_as_the_encoders_own_vector(embedder_folder, texts):
    from sentence_transformers import SentenceTransformer

    encoder = DuplexEncoder.from_encoder(
        str(embedder_folder), DuplexConfig(top_k=10, dense_pooling="mean", words="none")
    )
    ours = encoder.encode_document(texts).to_dense()[:, V:].cpu().numpy()
    theirs = SentenceTransformer(str(embedder_folder), device="cpu").encode(texts)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_narrower_dense_half_starts_from_orthogonal_directions(bert_folder):
    encoder = DuplexEncoder.from_encoder(str(bert_folder), DuplexConfig(top_k=10, dense_dimension=8))
    weight = encoder.pooling.cls_projection.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(8, device=weight.device), atol=1e-5, rtol=0)


def test_full_width_encoder_of_a_checkpoint_with_a_head_is_the_same_whatever_the_seed(bert_folder):
    def build(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return DuplexEncoder.from_encoder(str(bert_folder), DuplexConfig(top_k=10)).state_dict()

    one, other = build(1), build(2)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_half_precision_checkpoint_is_loaded_in_float32(bert_folder, write_tokenizer, tmp_path):
    BertForMaskedLM.from_pretrained(bert_folder).half().save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    encoder = DuplexEncoder.from_encoder(str(tmp_path), DuplexConfig(top_k=10))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", [PreTrainedTokenizerFast, RobertaTokenizer])
def test_a_byte_level_tokenizer_reads_the_first_word_as_any_other(kind, tmp_path):
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    special = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<m>"}
    trainer = BpeTrainer(special_tokens=[*special.values()], initial_alphabet=ByteLevel.alphabet(), vocab_size=300)
    tokenizer.train_from_iterator(["boke zali boke zali"] * 9, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    made = {"tokenizer_object": tokenizer}
    if kind is RobertaTokenizer:
        made = {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}
    kind(**made, **special).save_pretrained(tmp_path / "base")
    size = len(model["vocab"])
    widths = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = RobertaConfig(vocab_size=size, max_position_embeddings=20, pad_token_id=1, **widths)
    RobertaForMaskedLM(config).save_pretrained(tmp_path / "base")
    encoder = DuplexEncoder.from_encoder(str(tmp_path / "base"), DuplexConfig(top_k=10))
    encoder.save_pretrained(str(tmp_path / "model"))
    for one in (encoder, DuplexEncoder(str(tmp_path / "model"))):
        assert one.tokenizer.tokenize("boke zali") == ["Ġboke", "Ġzali"]


def test_rows_of_the_vocabulary_that_no_token_has_are_never_terms(bert_folder, tmp_path, texts):
    model = BertForMaskedLM.from_pretrained(bert_folder)
    model.resize_token_embeddings(V + 40)
    with torch.no_grad():
        model.cls.predictions.decoder.bias[V:] = 100.0
    shutil.copytree(bert_folder, tmp_path / "padded")
    model.save_pretrained(tmp_path / "padded")
    encoder = DuplexEncoder.from_encoder(str(tmp_path / "padded"), DuplexConfig(top_k=10))
    assert encoder.embed_documents(texts).ids.max() < V


# What is refused


def test_a_tokenizer_with_special_tokens_that_the_encoder_does_not_know_is_refused(bert_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[NEW]"]})
    tokenizer.save_pretrained(folder)
    with pytest.raises(DupmaeError, match="beyond the 176 rows"):
        DuplexEncoder.from_encoder(str(folder), DuplexConfig(top_k=10))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"top_k": 177}, "top_k is 177, but the vocabulary has only 176 terms"),
        ({"dense_dimension": 33}, "dense_dimension is 33, but .* is only 32 wide"),
        ({"dense_dimension": 0, "top_k": 0}, "one of them must be above 0"),
        ({"dense_dimension": -1}, "dense_dimension must be at least 0, not -1"),
    ],
)
def test_impossible_representations_are_refused(settings, sentence, bert_folder):
    with pytest.raises(DupmaeError, match=sentence):
        DuplexEncoder.from_encoder(str(bert_folder), DuplexConfig(**{"top_k": 10} | settings))


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (lambda: GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1)), "decoder-only"),
        (
            lambda: T5ForConditionalGeneration(T5Config(vocab_size=9, d_model=8, d_kv=8, num_layers=1, num_heads=1)),
            "encoder-decoder",
        ),
    ],
)
def test_decoders_are_no_base_models(model, kind, write_tokenizer, tmp_path):
    model().save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(DupmaeError, match=f"is an? {kind} model"):
        DuplexEncoder.from_encoder(str(tmp_path), DuplexConfig(top_k=10))


@pytest.mark.parametrize("which", ["bert_folder", "embedder_folder"])
def test_folder_without_a_duplex_model_is_refused(which, request):
    with pytest.raises(DupmaeError, match="does not hold a duplex model"):
        DuplexEncoder(str(request.getfixturevalue(which)))


def test_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DupmaeError, match="no model folder"):
        DuplexEncoder.from_encoder(str(tmp_path / "nowhere"), DuplexConfig())
