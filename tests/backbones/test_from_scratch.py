"""Encoders made from nothing but text."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from dupmae.backbones.from_scratch import new_encoder
from dupmae.cli import main
from dupmae.config import ScratchConfig
from dupmae.errors import DupmaeError


def config(**changes: Any) -> ScratchConfig:
    small: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "vocabulary_size": 80, "positions": 24}
    return ScratchConfig(**small | changes)


@pytest.fixture
def corpus(words: list[str]) -> list[str]:
    """Texts of 6 to 20 words, capitals and accents among them."""
    draw = random.Random(3)
    texts = [" ".join(draw.choices(words, k=draw.randint(6, 20))) + "." for _ in range(60)]
    return [text.capitalize().replace("na", "ná") for text in texts]


def test_the_encoder_has_the_size_asked_for_and_a_tokenizer_that_fits(corpus: list[str], tmp_path: Path) -> None:
    folder = new_encoder(lambda: corpus, tmp_path / "start", config(), 1)
    model = AutoModelForMaskedLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = model.config
    assert (settings.num_hidden_layers, settings.hidden_size, settings.num_attention_heads) == (1, 16, 2)
    assert (settings.intermediate_size, settings.max_position_embeddings) == (64, 24)
    assert settings.vocab_size == len(tokenizer) == 80
    assert tokenizer.model_max_length == 24
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    ids = tokenizer(corpus[0])["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids[1:-1]) == corpus[0].lower().replace("á", "a")
    assert model(input_ids=torch.tensor([ids])).logits.shape == (1, len(ids), 80)


def test_case_and_accents_are_kept_where_they_matter(corpus: list[str], tmp_path: Path) -> None:
    folder = new_encoder(lambda: corpus, tmp_path / "start", config(lowercase=False, vocabulary_size=150), 1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(corpus[0], add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == corpus[0]


def test_a_small_corpus_gives_a_smaller_vocabulary(tmp_path: Path) -> None:
    folder = new_encoder(lambda: ["ab ab ab"], tmp_path / "start", config(vocabulary_size=9000), 1)
    assert AutoModelForMaskedLM.from_pretrained(folder).config.vocab_size == len(AutoTokenizer.from_pretrained(folder))
    assert len(AutoTokenizer.from_pretrained(folder)) < 15


def test_the_encoder_depends_on_text_settings_and_seed_alone(corpus: list[str], tmp_path: Path) -> None:
    folders = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)
        folders.append(new_encoder(lambda: corpus, tmp_path / f"{number}", config(), seed))
    after = torch.rand(1)
    torch.manual_seed(2)
    assert torch.equal(after, torch.rand(1))  # the global stream is left where it was
    one, same, other = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(one[name], same[name]) for name in one)
    name = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(one[name], other[name])
    vocabularies = [(folder / "tokenizer.json").read_text(encoding="utf-8") for folder in folders]
    assert vocabularies[0] == vocabularies[1] == vocabularies[2]


def test_an_encoder_that_is_there_is_kept_and_another_ones_folder_refused(corpus: list[str], tmp_path: Path) -> None:
    folder = new_encoder(lambda: corpus, tmp_path / "start", config(), 1)
    os.utime(folder / "model.safetensors", (1, 1))
    assert new_encoder(lambda: corpus, folder, config(), 1) == folder
    assert (folder / "model.safetensors").stat().st_mtime == 1
    for texts, settings, seed in ((corpus[1:], config(), 1), (corpus, config(width=32), 1), (corpus, config(), 2)):
        with pytest.raises(DupmaeError, match="other text or with other settings"):
            new_encoder(lambda texts=texts: texts, folder, settings, seed)  # type: ignore[misc]
    (tmp_path / "thesis").mkdir()
    with pytest.raises(DupmaeError, match="holds something else"):
        new_encoder(lambda: corpus, tmp_path / "thesis", config(), 1)


def test_a_width_that_heads_cannot_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DupmaeError, match="15 is none of 2"):
        new_encoder(list, tmp_path / "start", config(width=15), 1)


def test_a_character_that_is_rare_does_not_crowd_out_words(corpus: list[str], tmp_path: Path) -> None:
    odd = [*corpus, "".join(map(chr, range(0x4E00, 0x4E00 + 500)))]
    tokenizer = AutoTokenizer.from_pretrained(new_encoder(lambda: odd, tmp_path / "start", config(), 1))
    assert len(tokenizer) == 80
    assert tokenizer("丂 " + corpus[0])["input_ids"].count(tokenizer.unk_token_id) == 1


def test_no_text_and_broken_text_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    for texts, complaint in ((["", " "], "no text"), (["ab", "\ud800"], "Text 2 holds half of a surrogate pair")):
        with pytest.raises(DupmaeError, match=complaint):
            new_encoder(lambda texts=texts: texts, tmp_path / "start", config(), 1)  # type: ignore[misc]
    assert not list(tmp_path.iterdir())


def test_pretrain_makes_its_own_start_and_goes_on_after_an_interruption(
    corpus: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join(corpus), encoding="utf-8")
    sizes = "--layers 1 --width 16 --heads 2 --vocabulary_size 80 --positions 24 --max_length 20"
    schedule = "--new_layers_steps 0 --steps 4 --batch_size 4 --save_steps 2 --precision float32"
    words = ["pretrain", "--from_scratch", "--corpus", str(tmp_path / "corpus.txt"), *sizes.split(), *schedule.split()]
    assert main([*words, "--output", str(tmp_path / "whole")]) == 0

    saved = "transformers.trainer.Trainer._save_checkpoint"
    save: Any = pytest.importorskip("transformers").Trainer._save_checkpoint

    def save_and_die(*arguments: Any, **named: Any) -> None:
        save(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(saved, save_and_die)
        assert main([*words, "--output", str(tmp_path / "cut")]) == 130
    assert not (tmp_path / "cut" / "model").exists()
    assert main([*words, "--output", str(tmp_path / "cut")]) == 0
    whole, cut = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert json.loads((tmp_path / "cut" / "model" / "dupmae.json").read_text(encoding="utf-8"))["steps"]["joint"] == 4
    capsys.readouterr()


@pytest.mark.parametrize("choice", [[], ["--from_scratch", "--model", "somewhere"]])
def test_pretrain_starts_from_a_model_or_from_scratch(choice: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--corpus", "nowhere", "--output", "nowhere", *choice]) == 2
    assert "either --model NAME or --from_scratch" in capsys.readouterr().err
