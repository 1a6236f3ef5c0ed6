"""The equations of the paper, one by one, against readable twins in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
)

from dupmae.backbones import Backbone
from dupmae.config import PretrainConfig
from dupmae.pretraining.masking import decoder_visibility, mask_whole_words, select_whole_words, step_generator
from dupmae.pretraining.objective import DupMAE

CPU = torch.device("cpu")
PAD, CLS, SEP, MASK = 0, 2, 3, 4
V, D, HEADS = 40, 16, 2
SEED = 5
"""Draws masks that hide the one token of the third text of the batch."""


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Texts of 14, 9 and 3 tokens, special ones counted; ids repeat within a text."""
    generator = torch.Generator().manual_seed(5)
    input_ids = torch.full((3, 14), PAD)
    for row, length in enumerate((14, 9, 3)):
        input_ids[row, :length] = torch.randint(5, 20, (length,), generator=generator)
        input_ids[row, 0], input_ids[row, length - 1] = CLS, SEP
    word_starts = (torch.rand(3, 14, generator=generator) < 0.7) & (input_ids > 4)
    return {"input_ids": input_ids, "attention_mask": input_ids != PAD, "word_starts": word_starts}


def objective(**settings: Any) -> DupMAE:
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=V, hidden_size=D, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=32,
        max_position_embeddings=20, initializer_range=0.3,
    )  # fmt: skip
    model = DupMAE(Backbone(BertForMaskedLM(config)), [PAD, 1, CLS, SEP, MASK], MASK, PretrainConfig(**settings))
    torch.nn.init.normal_(model.backbone.output_bias)
    torch.nn.init.normal_(model.backbone.output_weight[PAD])  # zeros would let all tokens tie in the pool
    for layer in model.decoder.children():
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.normal_(layer.weight, std=0.3)
    return model.double().eval()


def draw(model: DupMAE, batch: dict[str, torch.Tensor], seed: int = SEED) -> tuple[torch.Tensor, ...]:
    """The masks that `model` draws from a generator with this seed: masked ids, selected, ordinary, visibility."""
    settings, generator = model.settings, step_generator(CPU, seed)
    ordinary = batch["input_ids"] > 4
    masked_ids, selected = mask_whole_words(
        batch["input_ids"], batch["word_starts"], ordinary, settings.encoder_mask_rate, MASK, torch.arange(5, V),
        settings.mask_token_fraction, settings.random_token_fraction, generator,
    )  # fmt: skip
    visible = decoder_visibility(batch["attention_mask"], settings.decoder_mask_rate, generator)
    return masked_ids, selected, ordinary, visible


def encode(model: DupMAE, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The Hugging Face encoder's states of the masked text, with its masks: states, selected, ordinary, visibility."""
    masked_ids, selected, ordinary, visible = draw(model, batch)
    states = model.backbone.model.bert(input_ids=masked_ids, attention_mask=batch["attention_mask"])[0]
    return states, selected, ordinary, visible


def losses(model: DupMAE, batch: dict[str, torch.Tensor], seed: int = SEED) -> dict[str, torch.Tensor]:
    return model(**batch, generator=step_generator(CPU, seed))


def logits_of(model: DupMAE, states: torch.Tensor) -> torch.Tensor:
    """The whole vocabulary head of the Hugging Face model."""
    return model.backbone.model.cls(states)


def naive_decoder(
    model: DupMAE, batch: dict[str, torch.Tensor], h_cls: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """Eq. 2-4, one position and one head at a time: (B, L, D)."""
    decoder, ids = model.decoder, batch["input_ids"]
    embeddings = model.backbone.model.bert.embeddings
    rebuilt = torch.zeros(*ids.shape, D, dtype=torch.float64)
    for b in range(len(ids)):
        context = torch.cat([h_cls[b][None], embeddings(ids[b][None])[0, 1:]])  # [h_cls; e_1 + p_1; ...]
        keys, values = decoder.key(context), decoder.value(context)
        for i in range(ids.shape[1]):
            query_row = h_cls[b] + embeddings.position_embeddings.weight[i]
            query = decoder.query(query_row)
            heads = []
            for head in torch.arange(D).split(D // HEADS):
                scores = keys[:, head] @ query[head] / (D // HEADS) ** 0.5
                allowed = scores + torch.where(visible[b, i], 0.0, -torch.inf)
                heads.append(allowed.softmax(0) @ values[:, head])
            state = decoder.attention_norm(query_row + decoder.attention_output(torch.cat(heads)))
            rebuilt[b, i] = decoder.output_norm(state + decoder.output(F.gelu(decoder.inner(state))))
    return rebuilt


def test_eq_1_masked_language_modelling_counts_the_selected_tokens_alone(batch: dict[str, torch.Tensor]) -> None:
    model = objective()
    states, selected, _, _ = encode(model, batch)
    logits = logits_of(model, states)
    expected = -logits.log_softmax(-1)[selected].gather(1, batch["input_ids"][selected][:, None]).mean()
    torch.testing.assert_close(losses(model, batch)["mlm"], expected)


def naive_selection(
    word_starts: list[bool], ordinary: list[bool], rate: float, keys: list[float], chance: float
) -> list[bool]:
    """Whole words in the order of their keys, where they fit; then by chance the first that did not, but never all."""
    words: list[list[int]] = []
    for i, (starts, is_ordinary) in enumerate(zip(word_starts, ordinary, strict=True)):
        if is_ordinary and (starts or not words or words[-1][-1] != i - 1):
            words.append([])
        if is_ordinary:
            words[-1].append(i)
    total = sum(ordinary)
    left, chosen = min(rate * total, total - (len(words) > 1)), list[int]()
    order, waiting = sorted(range(len(words)), key=lambda number: keys[number]), []
    for number in order:
        if len(words[number]) <= left:
            chosen += words[number]
            left -= len(words[number])
        else:
            waiting.append(words[number])
    if waiting:
        extra = next(word for word in waiting if len(word) > left)
        if chosen and len(chosen) + len(extra) == total:
            if chance * (len(extra) - len(chosen)) < left:
                chosen = extra
        elif chance * len(extra) < left:
            chosen += extra
    return [i in chosen for i in range(len(ordinary))]


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.77, 1.0])
def test_eq_1_the_masked_words_are_those_of_the_naive_twin(batch: dict[str, torch.Tensor], rate: float) -> None:
    ids = batch["input_ids"].repeat(20, 1)
    ids[::3, 5] = SEP  # a special token in the middle
    ordinary = ids > 4
    word_starts = (torch.rand(ids.shape) < 0.5) & ordinary
    selected = select_whole_words(word_starts, ordinary, rate, step_generator(CPU, 8))
    generator = step_generator(CPU, 8)
    keys = torch.rand(ids.shape, generator=generator)
    chances = torch.rand(len(ids), generator=generator)
    for row, *arguments in zip(selected, word_starts, ordinary, keys, chances, strict=True):
        starts, is_ordinary, key, chance = (values.tolist() for values in arguments)
        assert row.tolist() == naive_selection(starts, is_ordinary, rate, key, chance)


def shown_to_the_encoder(model: DupMAE, batch: dict[str, torch.Tensor], monkeypatch: Any) -> torch.Tensor:
    """The ids that the encoder gets in a forward pass."""
    seen: list[torch.Tensor] = []
    states = model.backbone.states
    monkeypatch.setattr(model.backbone, "states", lambda ids, mask: (seen.append(ids), states(ids, mask))[1])
    losses(model, batch)
    assert len(seen) == 1  # one encoder pass feeds all three losses
    return seen[0]


@pytest.mark.parametrize("rate", [0.0, 0.15, 0.3, 0.6])
def test_eq_1_the_encoder_sees_the_share_of_tokens_masked_that_is_set(
    batch: dict[str, torch.Tensor], rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = objective(encoder_mask_rate=rate, mask_token_fraction=1.0, random_token_fraction=0.0)
    large = {name: tensor[:1].repeat(200, 1) for name, tensor in batch.items()}
    large["word_starts"] = large["input_ids"] > 4
    shown = shown_to_the_encoder(model, large, monkeypatch)
    ordinary = large["input_ids"] > 4  # 12 in each row
    masked = ((shown == MASK) & ordinary).sum(dim=1).double()
    assert (masked - rate * 12).abs().max() < 1  # a word has one token here
    assert masked.mean() == pytest.approx(rate * 12, abs=0.12)
    assert torch.equal(shown[~ordinary], large["input_ids"][~ordinary])


@pytest.mark.parametrize(("mask", "random"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.5, 0.25)])
def test_eq_1_masked_tokens_are_replaced_in_the_fractions_that_are_set(
    batch: dict[str, torch.Tensor], mask: float, random: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = objective(encoder_mask_rate=0.5, mask_token_fraction=mask, random_token_fraction=random)
    large = {name: tensor[:1].repeat(200, 1) for name, tensor in batch.items()}
    large["input_ids"] = torch.where(large["input_ids"] > 4, 39, large["input_ids"])
    shown = shown_to_the_encoder(model, large, monkeypatch)
    _, selected, _ = model.mask(**large, generator=step_generator(CPU, SEED))
    became = shown[selected]
    assert (became == MASK).double().mean() == pytest.approx(mask, abs=0.05 * (0 < mask < 1))
    drawn = (became != MASK) & (became != 39)
    assert drawn.double().mean() == pytest.approx(random * 34 / 35, abs=0.05)  # one of 35 ids is 39 itself
    assert (became[drawn] > 4).all()  # never a special token
    assert torch.equal(shown[~selected], large["input_ids"][~selected])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_eq_2_to_5_the_decoder_rebuilds_every_ordinary_token_from_one_vector(
    batch: dict[str, torch.Tensor], pooling: str
) -> None:
    model = objective(dense_pooling=pooling)
    states, _, ordinary, visible = encode(model, batch)
    h_cls = states[:, 0]
    if pooling == "mean":
        h_cls = torch.stack([row[mask].mean(0) for row, mask in zip(states, batch["attention_mask"], strict=True)])
    logits = logits_of(model, naive_decoder(model, batch, h_cls, visible))
    expected = F.cross_entropy(logits[ordinary], batch["input_ids"][ordinary])
    torch.testing.assert_close(losses(model, batch)["cls"], expected)


def naive_visibility(attention_mask: list[bool], rate: float, draws: list[list[float]]) -> list[list[bool]]:
    """What each row may look at, position by position: Eq. 4, with position 0 for every row but its own."""
    length = len(attention_mask)
    rows = [[False] * length for _ in range(length)]
    for i in range(length):
        for j in range(length):
            if j == i or not attention_mask[j]:
                continue
            rows[i][j] = draws[i][j] >= rate or j == 0
        if not any(rows[i]):  # row 0 with nothing drawn: the candidate closest to being drawn, or itself
            candidates = [j for j in range(length) if j != i and attention_mask[j]]
            rows[i][max(candidates, key=lambda j: draws[i][j], default=i)] = True
    return rows


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.95, 1.0])
def test_eq_3_and_4_every_row_sees_what_the_naive_twin_sees(rate: float) -> None:
    attention_mask = torch.arange(14)[None] < torch.tensor([14, 9, 3, 2, 1] * 8)[:, None]
    visible = decoder_visibility(attention_mask, rate, step_generator(CPU, 6))
    draws = torch.rand(visible.shape, generator=step_generator(CPU, 6))
    for rows, mask, draw_of_text in zip(visible, attention_mask, draws, strict=True):
        assert rows.tolist() == naive_visibility(mask.tolist(), rate, draw_of_text.tolist())


def seen_by_the_decoder(model: DupMAE, batch: dict[str, torch.Tensor], monkeypatch: Any, seed: int) -> torch.Tensor:
    """The visibility that the decoder gets in a forward pass."""
    seen: list[torch.Tensor] = []
    decode = model.decoder.forward
    monkeypatch.setattr(model.decoder, "forward", lambda *a: (seen.append(a[-1]), decode(*a))[1])
    losses(model, batch, seed)
    monkeypatch.undo()
    return seen[0]


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_eq_3_and_4_rows_of_the_objective_see_position_zero_and_a_fresh_sample_at_the_rate_that_is_set(
    batch: dict[str, torch.Tensor], rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = objective(decoder_mask_rate=rate)
    large = {name: tensor.repeat(30, 1) for name, tensor in batch.items()}
    visible, next_step = (seen_by_the_decoder(model, large, monkeypatch, seed) for seed in (0, 1))
    tokens = large["attention_mask"]
    assert visible[:, 1:, 0].all()
    assert not visible.diagonal(dim1=1, dim2=2).any()
    assert not (visible & ~tokens[:, None]).any()
    assert visible.any(dim=2).all()
    others = tokens[:, 1:, None] & tokens[:, None, 1:] & ~torch.eye(13, dtype=torch.bool)
    assert visible[:, 1:, 1:][others].double().mean() == pytest.approx(1 - rate, abs=0.03 * (0 < rate < 1))
    if 0 < rate < 1:
        assert not torch.equal(visible, next_step)
        rows = visible[::3, 1:, 1:].flatten(0, 1)  # of the texts of 14 tokens
        assert len(rows.unique(dim=0)) > 0.9 * len(rows) * min(rate, 1 - rate)


def without_positions(kind: str) -> DupMAE:
    """The objective on an encoder that has no absolute positions."""
    torch.manual_seed(1)
    widths: dict[str, Any] = {
        "vocab_size": V, "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": HEADS, "pad_token_id": PAD,
        "intermediate_size": 32, "max_position_embeddings": 20, "initializer_range": 0.3,
    }  # fmt: skip
    model: Any
    if kind == "deberta":
        relative = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
        model = DebertaV2ForMaskedLM(DebertaV2Config(**widths, **relative, type_vocab_size=0))
    else:
        ends = {"bos_token_id": CLS, "cls_token_id": CLS, "eos_token_id": SEP, "sep_token_id": SEP}
        model = ModernBertForMaskedLM(ModernBertConfig(**widths, **ends))
    return DupMAE(Backbone(model), [PAD, 1, CLS, SEP, MASK], MASK, PretrainConfig()).double().eval()


@pytest.mark.parametrize("kind", ["bert", "deberta", "modernbert"])
def test_eq_3_and_4_permuting_the_visible_context_changes_what_is_rebuilt(
    batch: dict[str, torch.Tensor], kind: str
) -> None:
    model = objective() if kind == "bert" else without_positions(kind)
    torch.nn.init.normal_(model.decoder.value.weight)
    torch.nn.init.normal_(model.decoder.key.weight)
    ids = batch["input_ids"][:1].clone()
    h_cls = torch.randn(1, D, dtype=torch.float64)
    visible = decoder_visibility(batch["attention_mask"][:1], 0.0, step_generator(CPU, 0))
    swapped = ids.clone()
    swapped[0, [2, 3, 4]] = torch.tensor([11, 12, 13])
    permuted = swapped.clone()
    permuted[0, [2, 3, 4]] = torch.tensor([12, 13, 11])
    one, other = (
        model.decoder(h_cls, model.backbone.positions(ids).double(), model.backbone.embed(text), visible)[0, 8]
        for text in (swapped, permuted)
    )
    assert (one - other).abs().max() > 1e-3


def test_eq_3_and_4_a_row_depends_on_nothing_it_does_not_see(batch: dict[str, torch.Tensor]) -> None:
    model = objective()
    _, _, _, visible = draw(model, batch)
    ids = batch["input_ids"]
    h_cls = torch.randn(3, D, dtype=torch.float64)
    rebuilt = model.decoder(h_cls, model.backbone.positions(ids), model.backbone.embed(ids), visible)
    for position in range(1, 14):
        other = ids.clone()
        other[0, position] = 39
        changed = model.decoder(h_cls, model.backbone.positions(ids), model.backbone.embed(other), visible)
        moved = (changed - rebuilt)[0].abs().amax(-1) > 1e-12
        assert torch.equal(moved, visible[0, :, position])
        assert not moved[position]


@pytest.mark.parametrize("projection", ["mlm_head", "linear"])
def test_eq_6_to_8_the_bag_of_words_is_named_from_the_pool_of_visible_ordinary_tokens(
    batch: dict[str, torch.Tensor], projection: str
) -> None:
    model = objective(lexical_projection=projection)
    states, selected, ordinary, _ = encode(model, batch)
    output = model.backbone.model.cls.predictions.decoder
    logits = logits_of(model, states) if projection == "mlm_head" else output(states)
    each = []
    for b in range(3):
        pooled = logits[b][ordinary[b] & ~selected[b]]
        if len(pooled):
            log_probabilities = pooled.max(0).values.log_softmax(0)
            unique = sorted(set(batch["input_ids"][b][ordinary[b]].tolist()))
            each.append(-log_probabilities[unique].mean())
    assert len(each) == 2  # the third text's only token is masked: it has nothing to pool
    torch.testing.assert_close(losses(model, batch)["bow"], torch.stack(each).mean())


def test_eq_7_masked_special_and_padded_positions_never_win_the_pool(batch: dict[str, torch.Tensor]) -> None:
    model = objective(lexical_projection="linear")
    states, selected, ordinary, _ = encode(model, batch)
    pooled = ordinary & ~selected
    towering = torch.where(pooled[:, :, None], states, 1e3)
    arguments = (batch["input_ids"], pooled)
    torch.testing.assert_close(model._bow_losses(towering, *arguments), model._bow_losses(states, *arguments))


def test_eq_8_a_repeated_token_counts_once(batch: dict[str, torch.Tensor]) -> None:
    model = objective()
    states = torch.randn(1, 6, D, dtype=torch.float64)
    pooled = torch.tensor([[False, True, True, False, False, False]])
    once = torch.tensor([[CLS, 7, 8, 8, SEP, PAD]])
    often = torch.tensor([[CLS, 7, 7, 8, SEP, PAD]])
    torch.testing.assert_close(*(model._bow_losses(states, ids, pooled) for ids in (once, often)))


@pytest.mark.parametrize("projection", ["mlm_head", "linear"])
def test_eq_9_the_objective_is_the_weighted_sum_and_its_gradient_that_of_the_twin(
    batch: dict[str, torch.Tensor], projection: str
) -> None:
    model = objective(mlm_weight=0.5, cls_weight=2.0, bow_weight=0.25, lexical_projection=projection)
    result = losses(model, batch)
    torch.testing.assert_close(result["loss"], 0.5 * result["mlm"] + 2 * result["cls"] + 0.25 * result["bow"])

    states, selected, ordinary, visible = encode(model, batch)
    ids = batch["input_ids"]
    logits = logits_of(model, states)
    rebuilt = logits_of(model, naive_decoder(model, batch, states[:, 0], visible))
    of_tokens = logits if projection == "mlm_head" else model.backbone.model.cls.predictions.decoder(states)
    pool = of_tokens.masked_fill(~(ordinary & ~selected)[:, :, None], -torch.inf)[:2].amax(1).log_softmax(-1)
    bags = [torch.unique(ids[b][ordinary[b]]) for b in range(2)]
    naive = (
        0.5 * F.cross_entropy(logits[selected], ids[selected])
        + 2 * F.cross_entropy(rebuilt[ordinary], ids[ordinary])
        - 0.25 * torch.stack([pool[b][bag].mean() for b, bag in enumerate(bags)]).mean()
    )
    parameters = [parameter for group in model.parameter_groups().values() for parameter in group]
    ours, theirs = (torch.autograd.grad(loss, parameters) for loss in (result["loss"], naive))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_eq_9_losses_and_gradients_of_a_batchs_parts_add_up_to_those_of_the_batch(
    batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = objective(mlm_weight=0.5, cls_weight=2.0, bow_weight=0.25)
    parameters = [parameter for group in model.parameter_groups().values() for parameter in group]
    masked_ids, selected, ordinary, visible = draw(model, batch)

    def of(rows: slice, totals: torch.Tensor | None = None) -> list[torch.Tensor]:
        monkeypatch.setattr(model, "mask", lambda *_: (masked_ids[rows], selected[rows], ordinary[rows]))
        monkeypatch.setattr("dupmae.pretraining.objective.decoder_visibility", lambda *_: visible[rows])
        part = {name: tensor[rows] for name, tensor in batch.items()}
        result = model(**part, generator=step_generator(CPU, SEED), totals=totals)
        return [*result.values(), *torch.autograd.grad(result["loss"], parameters)]

    whole = of(slice(None))
    totals = model.counts(**batch, generator=step_generator(CPU, SEED))
    assert totals.tolist() == [selected.sum(), 12 + 7 + 1, 2]  # the third text's one token is masked: nothing to pool
    for value, first, second in zip(whole, of(slice(1), totals), of(slice(1, 3), totals), strict=True):
        torch.testing.assert_close(first + second, value)


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ({"bow_weight": 0.0}, ["mlm", "cls"]),  # [CLS] decoding only: RetroMAE
        ({"cls_weight": 0.0}, ["mlm", "bow"]),  # OT decoding only
        ({}, ["mlm", "cls", "bow"]),
    ],
)
def test_eq_9_each_decoding_task_can_be_trained_alone(
    batch: dict[str, torch.Tensor], weights: dict[str, float], parts: list[str]
) -> None:
    whole, model = objective(), objective(**weights)
    expected, found = losses(whole, batch), losses(model, batch)
    assert list(found) == [*parts, "loss"]
    torch.testing.assert_close(found["mlm"], expected["mlm"])
    torch.testing.assert_close(found["loss"], torch.stack([found[part] for part in parts]).sum())
    if "cls" in parts:  # the masks of what remains are those of the whole objective
        torch.testing.assert_close(found["cls"], expected["cls"])
    if "bow" in parts:
        torch.testing.assert_close(found["bow"], expected["bow"])
    found["loss"].backward()
    learned = {id(p) for p in model.parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert bool(learned & {id(p) for p in model.decoder.parameters()}) == ("cls" in parts)
    assert bool(model.parameter_groups()["decoder"]) == ("cls" in parts)


@pytest.mark.parametrize("part", ["mlm", "cls", "bow"])
def test_a_part_with_weight_zero_is_not_computed(
    batch: dict[str, torch.Tensor], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = objective(**{f"{part}_weight": 0.0})

    def never(*args: Any) -> torch.Tensor:
        raise AssertionError("computed")

    if part != "mlm":
        monkeypatch.setattr(model, {"cls": "rebuild", "bow": "pool"}[part], never)
    assert set(losses(model, batch)) == {"mlm", "cls", "bow", "loss"} - {part}


def test_each_encoder_row_goes_through_the_vocabulary_head_at_most_once(
    batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = objective(cls_weight=0.0)
    _, _, ordinary, _ = draw(model, batch)
    seen: list[torch.Tensor] = []
    transform = model.backbone.transform
    monkeypatch.setattr(model.backbone, "transform", lambda states: (seen.append(states), transform(states))[1])
    losses(model, batch)
    rows = torch.cat(seen)
    rows = rows[rows.any(dim=1)]  # without what pads them
    assert len(rows) == ordinary.sum() == len(rows.unique(dim=0))


def test_masks_are_fresh_for_every_step_and_the_same_for_the_same(batch: dict[str, torch.Tensor]) -> None:
    model = objective()
    same, again, other = (losses(model, batch, seed) for seed in (1, 1, 2))
    for part in ("mlm", "cls", "bow"):
        assert same[part] == again[part] != other[part]


def test_a_frozen_encoder_has_no_dropout_and_no_gradient(batch: dict[str, torch.Tensor]) -> None:
    model = objective().train()
    model.learn({"head", "decoder"})
    assert not any(module.training for module in model.backbone.encoder.modules())
    assert model.decoder.training
    losses(model, batch)["loss"].backward()
    groups = model.parameter_groups()
    assert all(parameter.grad is None for parameter in groups["encoder"])
    assert all(parameter.grad is not None for parameter in [*groups["head"], *groups["decoder"]])
    model.learn({"encoder", "head", "decoder"})
    assert all(module.training for module in model.backbone.encoder.modules())
