"""lora_np.model: causality, padding, what is wanted and what is recorded, where the way back ends, first values.

test_vectors.py compares all activations and gradients by name, test_gradcheck.py tests that nothing is written into.
"""

import math
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

from lora_np import model
from lora_np.model import (
    BertConfig,
    GPT2Config,
    LlamaConfig,
    backward,
    draw_masks,
    forward,
    loss_and_gradients,
    parameter_shapes,
)
from lora_np.model.architectures import ARCHITECTURES, architecture

from .tiny import same_bits

LAST_NORMS = {GPT2Config: "ln_f", LlamaConfig: "norm_f", BertConfig: "blocks.1.norm2"}
WIDES = [
    GPT2Config(vocab_size=50, n_positions=32, d_model=64, n_layers=4, n_heads=4, d_ff=256),
    LlamaConfig(vocab_size=50, n_positions=32, d_model=64, n_layers=4, n_heads=4, n_kv_heads=2, head_size=16, d_ff=256),
]


# ------------------------------------------------------------------ names


def test_what_is_wanted_changes_no_number_and_gradients_that_nothing_needs_are_absent(
    config, random_params, random_batch
):
    params, batch = random_params(config), random_batch(config)

    def recorded(wanted):
        there, back = {}, {}
        logits, cache = forward(params, batch.ids, config, lengths=batch.lengths, wanted=wanted, record=there)
        assert there["logits"] is logits
        if wanted:
            backward(np.ones_like(logits), cache, back)
        return there, back

    runs = [recorded(wanted) for wanted in ((), tuple(params), ("blocks.1.attn.k_proj.weight",))]
    (plain, _), (_, everything), (_, some) = runs
    assert all(same_bits(there, plain) for there, _ in runs)
    assert list(some) == [name for name in everything if name in some]
    assert all(np.array_equal(array, everything[name]) for name, array in some.items())
    assert list(some)[-1] == "blocks.1.attn.k_proj"
    assert {"blocks.1.attn.scores", "blocks.1.attn.residual"} < set(some)
    below = ["attn.v_proj", "attn.q_proj", *["ln1", "norm1"] * (type(config) is not BertConfig)]
    assert not {f"blocks.1.{name}" for name in below} & set(some)


@pytest.mark.parametrize("padded", [True, False])
def test_a_classifier_is_the_language_model_read_at_one_position(
    either_classifier, random_params, random_batch, padded
):
    """What it computes at one position alone is what a pass over all positions has there.

    That is all that leads to that position alone: nothing but the keys and values of the last block reads the others.
    """
    config, norm = either_classifier, LAST_NORMS[type(either_classifier)]
    params, batch = random_params(config), random_batch(config, padded=padded)
    whole, read = {}, {}
    forward(params, batch.ids, replace(config, n_classes=0), record=whole)
    lengths = batch.lengths if padded else None
    logits, _ = forward(params, batch.ids, config, lengths=lengths, record=read)
    rows, last, at_one = np.arange(3), batch.lengths - 1, []
    for name, array in read.items():
        expected = whole.get(name)
        if name in ("pooled", "logits"):
            expected = whole[norm][rows, last] @ (np.eye(12) if name == "pooled" else params["head.weight"].T)
        elif array.shape[-2] == 1 != expected.shape[-2]:
            expected = np.take_along_axis(expected, last.reshape(-1, *[1] * (expected.ndim - 1)), axis=-2)
            at_one.append(name)
        np.testing.assert_allclose(array, expected, rtol=0, atol=1e-12, err_msg=name)
    everywhere = ("1", "attn.k_proj", "attn.v_proj", "attn.k_rotated")  # ln1 or norm1 among them
    of_block = [name for name in read if name.startswith("blocks.1.") and not name.endswith(everywhere)]
    assert at_one == [*of_block, norm] and len(of_block) > 8


# ------------------------------------------------------------------ blocks that are computed twice


def test_recomputing_blocks_changes_no_bit_and_keeps_little(config, random_params, random_batch, random_adapter):
    """Activations and gradients of every name; the cache has each block's input, and nothing of a block stays."""
    config = replace(config, dropout=0.3)
    params, batch = random_params(config), random_batch(config)
    adapter = random_adapter(params, dropout=0.3)
    masks = draw_masks(config, batch.ids.shape, np.random.default_rng(0), adapter, "float64")
    wanted = tuple(adapter.weights | params)
    records, kept = [], []
    for recompute in (False, True):
        there, back = {}, {}
        given = {"lengths": batch.lengths, "adapter": adapter, "masks": masks, "recompute": recompute}
        logits, cache = forward(params, batch.ids, config, **given, wanted=wanted, record=there)
        kept.append(model.cache_bytes(cache))
        grads = backward(np.cos(logits), cache, back)
        assert model.cache_bytes(cache) == kept[-1]
        records.append([there, back, grads])
        assert list(there)[-1] == "logits"
        objective = loss_and_gradients(params, batch, config, adapter, wanted, masks, recompute=recompute)
        records[-1].append({**objective.grads, "loss": np.array(objective.loss)})
    for plain, again in zip(*records):
        assert list(plain) == list(again)
        for name, array in plain.items():
            np.testing.assert_array_equal(again[name], array, err_msg=name)
    assert kept[1] < kept[0] / 4


def test_no_block_below_the_lowest_trained_one_is_computed_twice(config, random_params, random_batch):
    params, batch = random_params(config), random_batch(config)
    model = architecture(config)
    block_forward = mock.Mock(wraps=model.block_forward)
    with mock.patch.dict(ARCHITECTURES, {model.name: model._replace(block_forward=block_forward)}):
        loss_and_gradients(params, batch, config, wanted=("blocks.1.attn.v_proj.weight",), recompute=True)
    assert [call.args[1] for call in block_forward.call_args_list] == [0, 1, 1]


def test_a_step_never_has_the_logits_of_all_positions(either_language, random_params, random_batch):
    """Of a language model: the head is a part of its loss."""
    asked, params, batch = [], random_params(either_language), random_batch(either_language)
    observed = "lora_np.model.objective.forward"
    with mock.patch(observed, lambda *args, **kw: asked.append(kw["head"]) or forward(*args, **kw)):
        loss_and_gradients(params, batch, either_language, wanted=tuple(params))
    assert asked == [False]


# ------------------------------------------------------------------ causality, padding, length


def test_a_token_changes_no_earlier_logit(either_language, random_params, random_batch):
    params, ids = random_params(either_language), random_batch(either_language, padded=False).ids
    before = forward(params, ids, either_language)[0]
    for t in range(6):
        changed = ids.copy()
        changed[:, t] = (changed[:, t] + 1) % 13
        after = forward(params, changed, either_language)[0]
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert (np.abs(after[:, t:] - before[:, t:]).max(axis=-1) > 1e-6).all(), "every later logit sees it"


def test_padding_is_of_no_account(config, random_params, random_batch):
    """Other ids in it: bit for bit the same loss and gradients. More of it: the same, to rounding."""
    params, batch = random_params(config), random_batch(config)
    padding = np.arange(6) >= batch.lengths[:, None]
    assert padding.any()
    other = batch._replace(ids=np.where(padding, (batch.ids + 5) % 13, batch.ids))
    targets = batch.targets if config.n_classes else np.pad(batch.targets, ((0, 0), (0, 1)), constant_values=-100)
    longer = other._replace(ids=np.pad(other.ids, ((0, 0), (0, 1)), constant_values=3), targets=targets)
    here, there, far = (loss_and_gradients(params, b, config, wanted=tuple(params)) for b in (batch, other, longer))
    assert here.loss == there.loss == pytest.approx(far.loss, rel=1e-13)
    for name, grad in here.grads.items():
        np.testing.assert_array_equal(there.grads[name], grad, err_msg=name)
        np.testing.assert_allclose(far.grads[name], grad, rtol=0, atol=1e-13, err_msg=name)
    if "pos_emb.weight" in params:
        assert not far.grads["pos_emb.weight"][6].any(), "nobody reads the position that only padding has"


# ------------------------------------------------------------------ wanted gradients


def test_the_backward_pass_stops_below_the_lowest_trained_layer(config, random_params, random_batch, random_adapter):
    params, batch = random_params(config), random_batch(config)

    def linear_layers(adapter, wanted):
        """Those that the backward pass goes through, in order."""
        logits, cache = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter, wanted=tuple(wanted))
        back = {}
        backward(np.ones_like(logits), cache, record=back)
        return [name for name in back if name.endswith("_proj")]

    def in_block(i, *names):
        return [f"blocks.{i}.{name}" for name in names]

    gate = ["mlp.gate_proj"] if "blocks.0.mlp.gate_proj.weight" in params else []
    everything = ["mlp.down_proj", "mlp.up_proj", *gate, "attn.o_proj", "attn.v_proj", "attn.k_proj", "attn.q_proj"]
    last_v = random_adapter(params, targets=("blocks.1.attn.v_proj",), train_head=False)
    last_up = random_adapter(params, targets=("blocks.1.mlp.up_proj",), train_head=False)
    assert linear_layers(None, params) == in_block(1, *everything) + in_block(0, *everything)
    assert linear_layers(last_v, last_v.weights) == in_block(1, *everything[: 4 + len(gate)])
    assert linear_layers(last_up, last_up.weights) == in_block(1, *everything[:2])
    assert linear_layers(None, ["blocks.0.mlp.down_proj.weight"]) == in_block(1, *everything) + [
        "blocks.0.mlp.down_proj"
    ]
    assert linear_layers(None, [f"{LAST_NORMS[type(config)]}.weight"]) == []


# ------------------------------------------------------------------ dtypes


def test_float32_agrees_with_float64(config, random_params, random_batch):
    batch = random_batch(config)
    single, double = (random_params(config, dtype) for dtype in (np.float32, np.float64))
    here, there = {}, {}
    for params, record in ((single, here), (double, there)):
        forward(params, batch.ids, config, lengths=batch.lengths, record=record)
        record |= {
            f"d {n}": g for n, g in loss_and_gradients(params, batch, config, wanted=tuple(params)).grads.items()
        }
    for name, expected in there.items():
        finite = np.isfinite(expected)
        # The gradient of a key bias is zero but for rounding, so its weight's gradient gives the measure.
        measure = there[name.replace("k_proj.bias", "k_proj.weight")]
        scale = np.sqrt(np.mean(measure[np.isfinite(measure)] ** 2))
        assert np.abs(here[name][finite] - expected[finite]).max() <= 1e-5 * scale, name


# ------------------------------------------------------------------ the loss of a batch


def test_predictions_are_those_of_the_forward_pass(config, random_params, random_batch):
    params, batches = random_params(config), [random_batch(config, seed=seed) for seed in range(2)]
    for (logits, targets), batch in zip(model.predict_logits(params, batches, config), batches):
        np.testing.assert_array_equal(logits, forward(params, batch.ids, config, lengths=batch.lengths)[0])
        assert targets is batch.targets
        result = loss_and_gradients(params, batch, config)
        assert result.n_targets == np.count_nonzero(batch.targets != -100)
        assert result.grads == {} and type(result.loss) is float


# ------------------------------------------------------------------ first values


@pytest.mark.parametrize("wide", WIDES, ids=["GPT-2", "Llama"])
@pytest.mark.parametrize("n_layers, n_classes", [(1, 0), (6, 100)])
def test_layers_that_write_into_the_stream_start_smaller(n_layers, n_classes, wide):
    config = replace(wide, n_layers=n_layers, n_classes=n_classes)
    for name, array in model.initial_params(config, np.random.default_rng(0)).items():
        if name.endswith(".bias"):
            assert not array.any(), name
        elif array.ndim == 1:
            assert (array == 1.0).all(), name
        else:
            residual = "o_proj" in name or "down_proj" in name
            std = 0.02 / math.sqrt(2 * n_layers) if residual else 0.02
            assert np.std(array) == pytest.approx(std, rel=5 / math.sqrt(2 * array.size)), name
            assert abs(np.mean(array)) < 5 * std / math.sqrt(array.size), name


def test_first_values_come_from_the_generator_alone(config):
    first, again, other = (model.initial_params(config, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert list(first) == list(parameter_shapes(config))
    assert {name: array.shape for name, array in first.items()} == parameter_shapes(config)
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert not np.array_equal(first["tok_emb.weight"], other["tok_emb.weight"])
    double = model.initial_params(config, np.random.default_rng(0), np.float64)
    assert all(np.array_equal(array.astype(np.float32), first[name]) for name, array in double.items())


def test_parameters_of_known_models():
    """GPT-2 small's number that everybody knows, and SmolLM2-135M's."""
    gpt2 = GPT2Config(vocab_size=50257, n_positions=1024, d_model=768, n_layers=12, n_heads=12, d_ff=3072)
    smollm2 = LlamaConfig(49152, 8192, 576, n_layers=30, n_heads=9, n_kv_heads=3, head_size=64, d_ff=1536)
    counts = [sum(map(math.prod, parameter_shapes(config).values())) for config in (gpt2, smollm2)]
    assert counts == [124_439_808, 134_515_008]


def test_adding_a_head(either_language, random_params, random_batch):
    language = either_language
    params = random_params(language, np.float32)
    with_head, config = model.add_head(params, language, 5, np.random.default_rng(0))
    assert config == replace(language, n_classes=5)
    assert "head.weight" not in params and list(with_head) == list(parameter_shapes(config))
    assert with_head["head.weight"].shape == (5, 12) and with_head["head.weight"].dtype == np.float32
    assert all(with_head[name] is params[name] for name in params)
    assert forward(with_head, random_batch(language).ids, config)[0].shape == (3, 5)
    again, config = model.add_head(with_head, config, 3, np.random.default_rng(0))
    assert again["head.weight"].shape == (3, 12) and config.n_classes == 3


# ------------------------------------------------------------------ dropout


def test_masks_have_the_name_and_the_width_of_their_place(either_language, random_params, random_adapter):
    """The model's drop with the model's probability, and the adapter's inputs with the adapter's."""
    language = either_language
    adapter = random_adapter(random_params(language), targets=("q_proj", "down_proj"), dropout=0.5)
    masks = draw_masks(replace(language, dropout=0.25), (3, 6), np.random.default_rng(0), adapter)
    branches = [f"blocks.{i}.{name}" for i in range(2) for name in ("attn", "mlp")]
    places = ["embed"] * isinstance(language, GPT2Config) + branches
    inputs = [f"blocks.{i}.{name}.adapter" for i in range(2) for name in ("attn.q_proj", "mlp.down_proj")]
    assert list(masks) == places + inputs
    for name, mask in masks.items():
        assert mask.shape == (3, 6, 20 if "down_proj" in name else 12) and mask.dtype == np.float32
        assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / (0.75 if name in places else 0.5))}
    assert draw_masks(language, (3, 6), np.random.default_rng(0)) == {}
