"""lora_np.model: activations and their gradients by name, causality, padding, what the cache keeps, first values."""

import math
from dataclasses import replace

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, init_adapter
from lora_np.model import (
    ModelConfig,
    add_head,
    backward,
    cache_bytes,
    draw_masks,
    forward,
    initial_params,
    loss_and_gradients,
    parameter_shapes,
    predict_logits,
)

BLOCK = ["ln1", "attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.scores", "attn.probs", "attn.context"]
BLOCK += ["attn.o_proj", "attn.residual", "ln2", "mlp.up_proj", "mlp.gelu", "mlp.down_proj", "mlp.residual"]


@pytest.fixture(params=["language", "classifier"])
def config(request):
    return request.getfixturevalue(request.param)


def activation_names(config):
    names = ["tok_emb", "pos_emb", "embed"]
    names += [f"blocks.{i}.{name}" for i in range(config.n_layers) for name in BLOCK]
    return names + ["ln_f"] + (["pooled"] if config.n_classes else []) + ["logits"]


def gradients(params, batch, config, wanted, **others):
    return loss_and_gradients(params, batch, config, wanted=tuple(wanted), **others).grads


# ------------------------------------------------------------------ names


def test_activations_are_named_in_execution_order(config, random_params, random_batch):
    params, batch = random_params(config), random_batch(config)
    record = {}
    logits, _ = forward(params, batch.ids, config, lengths=batch.lengths, record=record)
    assert list(record) == activation_names(config)
    assert record["logits"] is logits


def test_activations_are_the_same_whatever_is_wanted(config, random_params, random_batch):
    params, batch = random_params(config), random_batch(config)
    records = []
    for wanted in ((), ("blocks.1.mlp.up_proj.bias",), tuple(params)):
        records.append({})
        forward(params, batch.ids, config, lengths=batch.lengths, wanted=wanted, record=records[-1])
    for record in records[1:]:
        assert list(record) == list(records[0])
        assert all(np.array_equal(record[name], array) for name, array in records[0].items())


def test_gradients_of_activations_have_the_same_names_in_reverse(config, random_params, random_batch):
    params, batch = random_params(config), random_batch(config)
    there, back = {}, {}
    logits, cache = forward(params, batch.ids, config, lengths=batch.lengths, wanted=tuple(params), record=there)
    backward(np.random.default_rng(0).standard_normal(logits.shape), cache, back)
    assert list(back) == list(reversed(there))
    assert {name: array.shape for name, array in back.items()} == {n: a.shape for n, a in there.items()}


def test_gradients_that_nothing_needs_are_absent_and_the_others_the_same(config, random_params, random_batch):
    params, batch = random_params(config), random_batch(config)

    def recorded(wanted):
        logits, cache = forward(params, batch.ids, config, lengths=batch.lengths, wanted=wanted)
        back = {}
        backward(np.ones_like(logits), cache, back)
        return back

    everything, some = recorded(tuple(params)), recorded(("blocks.1.attn.k_proj.weight",))
    assert list(some) == [name for name in everything if name in some]
    assert all(np.array_equal(array, everything[name]) for name, array in some.items())
    assert list(some)[-1] == "blocks.1.attn.k_proj"
    assert {"blocks.1.attn.scores", "blocks.1.attn.residual"} < set(some)
    assert not {"blocks.1.attn.v_proj", "blocks.1.attn.q_proj", "blocks.1.ln1"} & set(some)


class Photographs(dict):
    """A record that also keeps a copy of each array as it was when it was noted."""

    def __init__(self):
        self.copies = {}

    def __setitem__(self, name, array):
        super().__setitem__(name, array)
        self.copies[name] = array.copy()


def test_what_was_recorded_is_not_changed_afterwards(config, random_params, random_batch):
    """A sum or a mask written into an array in place would change what the reader has already been shown."""
    params, batch, there, back = random_params(config), random_batch(config), Photographs(), Photographs()
    masks = draw_masks(replace(config, dropout=0.3), batch.ids.shape, np.random.default_rng(0), dtype="float64")
    others = {"lengths": batch.lengths, "wanted": tuple(params), "masks": masks}
    logits, cache = forward(params, batch.ids, config, record=there, **others)
    backward(np.ones_like(logits), cache, back)
    for record in (there, back):
        for name, array in record.items():
            np.testing.assert_array_equal(array, record.copies[name], err_msg=name)


def test_shapes_of_activations(config, random_params, random_batch):
    B, T, C, H, F, V = 3, 6, 12, 3, 20, 13
    batch, record = random_batch(config, B, T), {}
    forward(random_params(config), batch.ids, config, lengths=batch.lengths, record=record)
    special = {"mlp.up_proj": (B, T, F), "mlp.gelu": (B, T, F)}
    special |= {"attn.scores": (B, H, T, T), "attn.probs": (B, H, T, T)}
    expected = {f"blocks.{i}.{name}": special.get(name, (B, T, C)) for i in range(2) for name in BLOCK}
    expected |= {"tok_emb": (B, T, C), "pos_emb": (T, C), "embed": (B, T, C), "ln_f": (B, T, C)}
    if config.n_classes:  # what leads to the one position alone that is read is computed there
        at_all = {"ln1", "attn.k_proj", "attn.v_proj"}
        one = [f"blocks.1.{name}" for name in BLOCK if name not in at_all] + ["ln_f"]
        expected |= {name: (B, 1, *expected[name][2:]) for name in one}
        expected |= {f"blocks.1.attn.{name}": (B, H, 1, T) for name in ("scores", "probs")}
    expected |= {"pooled": (B, C), "logits": (B, 4)} if config.n_classes else {"logits": (B, T, V)}
    assert {name: array.shape for name, array in record.items()} == expected


@pytest.mark.parametrize("padded", [True, False])
def test_a_classifier_is_the_language_model_read_at_one_position(
    language, classifier, random_params, random_batch, padded
):
    """What it computes at one position alone is what a pass over all positions has there."""
    params, batch = random_params(classifier), random_batch(classifier, padded=padded)
    whole, read = {}, {}
    forward(params, batch.ids, language, record=whole)
    lengths = batch.lengths if padded else None
    logits, _ = forward(params, batch.ids, classifier, lengths=lengths, record=read)
    rows, last = np.arange(3), batch.lengths - 1
    for name, array in read.items():
        expected = whole.get(name)
        if name in ("pooled", "logits"):
            expected = whole["ln_f"][rows, last] @ (np.eye(12) if name == "pooled" else params["head.weight"].T)
        elif array.shape[-2] == 1 != expected.shape[-2]:
            expected = np.take_along_axis(expected, last.reshape(-1, *[1] * (expected.ndim - 1)), axis=-2)
        np.testing.assert_allclose(array, expected, rtol=0, atol=1e-12, err_msg=name)


def test_the_recorded_numbers_hang_together(config, random_params, random_batch):
    """A reader who follows the names by hand arrives at the next number."""
    params, batch, a = random_params(config), random_batch(config), {}
    forward(params, batch.ids, config, lengths=batch.lengths, record=a)
    close = dict(rtol=0, atol=1e-12)
    np.testing.assert_allclose(a["embed"], a["tok_emb"] + a["pos_emb"], **close)
    np.testing.assert_allclose(a["blocks.0.attn.residual"], a["embed"] + a["blocks.0.attn.o_proj"], **close)
    residual = a["blocks.1.attn.residual"] + a["blocks.1.mlp.down_proj"]
    np.testing.assert_allclose(a["blocks.1.mlp.residual"], residual, **close)
    q, k = (a[f"blocks.0.attn.{name}"][1, :, 4:8] for name in ("q_proj", "k_proj"))  # row 1, head 1, D = 4
    scores, probs = a["blocks.0.attn.scores"][1, 1], a["blocks.0.attn.probs"][1, 1]
    allowed = np.tri(6, dtype=bool)
    np.testing.assert_allclose(scores[allowed], (q @ k.T / 2.0)[allowed], **close)
    assert (scores[~allowed] == -np.inf).all() and (probs[~allowed] == 0).all()
    np.testing.assert_allclose(probs.sum(axis=-1), 1.0, **close)
    np.testing.assert_allclose(probs[5], np.exp(scores[5]) / np.exp(scores[5]).sum(), **close)
    context = a["blocks.0.attn.context"][1, :, 4:8]
    np.testing.assert_allclose(context, probs @ a["blocks.0.attn.v_proj"][1, :, 4:8], **close)
    if config.n_classes:
        np.testing.assert_array_equal(a["pooled"], a["ln_f"][:, 0])
        np.testing.assert_allclose(a["logits"], a["pooled"] @ params["head.weight"].T, **close)
    else:
        np.testing.assert_allclose(a["logits"], a["ln_f"] @ params["tok_emb.weight"].T, **close)


# ------------------------------------------------------------------ causality, padding, length


def test_a_token_changes_no_earlier_logit(language, random_params, random_batch):
    params, ids = random_params(language), random_batch(language, padded=False).ids
    before = forward(params, ids, language)[0]
    for t in range(6):
        changed = ids.copy()
        changed[:, t] = (changed[:, t] + 1) % 13
        after = forward(params, changed, language)[0]
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert (np.abs(after[:, t:] - before[:, t:]).max(axis=-1) > 1e-6).all(), "every later logit sees it"


def test_rows_of_a_batch_do_not_see_one_another(config, random_params, random_batch):
    params, batch = random_params(config), random_batch(config)
    together = forward(params, batch.ids, config, lengths=batch.lengths)[0]
    for row in range(3):
        alone = forward(params, batch.ids[row : row + 1], config, lengths=batch.lengths[row : row + 1])[0]
        np.testing.assert_allclose(alone[0], together[row], rtol=0, atol=1e-12)


def test_what_the_padding_holds_is_of_no_account(config, random_params, random_batch):
    """Other ids in the padding: bit for bit the same loss, and gradients of all but the padded ids' rows."""
    params, batch = random_params(config), random_batch(config)
    padding = np.arange(6) >= batch.lengths[:, None]
    assert padding.any()
    other = batch._replace(ids=np.where(padding, (batch.ids + 5) % 13, batch.ids))
    here, there = (loss_and_gradients(params, b, config, wanted=tuple(params)) for b in (batch, other))
    assert here.loss == there.loss
    for name, grad in here.grads.items():
        np.testing.assert_array_equal(there.grads[name], grad, err_msg=name)


def test_more_padding_changes_nothing(classifier, random_params, random_batch):
    params, batch = random_params(classifier), random_batch(classifier)
    longer = batch._replace(ids=np.pad(batch.ids, ((0, 0), (0, 1)), constant_values=3))
    here, there = (loss_and_gradients(params, b, classifier, wanted=tuple(params)) for b in (batch, longer))
    logits = [forward(params, b.ids, classifier, lengths=b.lengths)[0] for b in (batch, longer)]
    np.testing.assert_allclose(logits[1], logits[0], rtol=0, atol=1e-13)
    for name, grad in here.grads.items():
        np.testing.assert_allclose(there.grads[name], grad, rtol=0, atol=1e-13, err_msg=name)
    assert not there.grads["pos_emb.weight"][6].any(), "nobody reads the position that only padding has"


def test_without_lengths_the_last_token_is_read(classifier, random_params, random_batch):
    params, ids = random_params(classifier), random_batch(classifier).ids
    full = forward(params, ids, classifier, lengths=np.full(3, 6))[0]
    np.testing.assert_array_equal(forward(params, ids, classifier)[0], full)


@pytest.mark.parametrize("T", [1, 7])
def test_the_shortest_and_the_longest_sequence(config, random_params, random_batch, T):
    params, batch = random_params(config), random_batch(config, B=2, T=T, padded=False)
    result = loss_and_gradients(params, batch, config, wanted=tuple(params))
    assert math.isfinite(result.loss)
    assert result.n_targets == (2 if config.n_classes else 2 * T)
    used = result.grads["pos_emb.weight"].any(axis=1)
    assert used.tolist() == [t < T for t in range(7)]


def test_a_sequence_beyond_the_position_table(config, random_params):
    with pytest.raises(ValueError, match="ids: a sequence of 8 tokens is longer .* n_positions = 7"):
        forward(random_params(config), np.zeros((2, 8), dtype=int), config)


@pytest.mark.parametrize("bad", [13, -1, 1000])
def test_ids_outside_the_vocabulary(config, random_params, bad):
    ids = np.zeros((2, 5), dtype=int)
    ids[1, 3] = bad
    with pytest.raises(ValueError, match=f"ids: {bad} is outside the table of 13 rows"):
        forward(random_params(config), ids, config)


@pytest.mark.parametrize("shape", [(5,), (2, 0), (1, 2, 5)])
def test_ids_of_another_shape(config, random_params, shape):
    with pytest.raises(ValueError, match="ids: got shape .* expected \\(B, T\\)"):
        forward(random_params(config), np.zeros(shape, dtype=int), config)


@pytest.mark.parametrize("ids", [np.zeros((2, 5)), [[1, 2, 3]]], ids=["float", "list"])
def test_ids_that_are_no_integer_array(config, random_params, ids):
    """A clear refusal, or the right answer; neither NumPy's IndexError nor an AttributeError."""
    params = random_params(config)
    try:
        logits = forward(params, ids, config)[0]
    except (ValueError, TypeError) as error:
        assert "ids" in str(error)
    else:
        np.testing.assert_array_equal(logits, forward(params, np.array(ids, dtype=int), config)[0])


@pytest.mark.parametrize("lengths", [[0, 5], [5, 6], [5, -1], [5], [5, 5, 5], [[5, 5]]])
def test_lengths_that_do_not_fit(classifier, random_params, lengths):
    with pytest.raises(ValueError, match="lengths"):
        forward(random_params(classifier), np.zeros((2, 5), dtype=int), classifier, lengths=np.array(lengths))


def test_unknown_names_are_refused(config, random_params, random_batch, random_adapter):
    params, ids = random_params(config), random_batch(config).ids
    for wanted in (("blocks.2.ln1.weight",), ("blocks.0.attn.q_proj.lora_A",), "tok_emb.weight"):
        with pytest.raises(ValueError, match="wanted: no parameter is named"):
            forward(params, ids, config, wanted=wanted)


def test_an_adapter_of_a_deeper_model_is_refused(config, random_params, random_batch, random_adapter):
    """Silently leaving out the adapter of a block that is not there would be another model."""
    deeper = replace(config, n_layers=3)
    adapter = random_adapter(random_params(deeper))
    with pytest.raises(ValueError, match="blocks.2.attn.q_proj"):
        forward(random_params(config), random_batch(config).ids, config, adapter=adapter)


def test_parameters_without_their_head_are_refused(classifier, language, random_params, random_batch):
    with pytest.raises(ValueError, match="head.weight"):
        forward(random_params(language), random_batch(language).ids, classifier)


# ------------------------------------------------------------------ wanted gradients


def test_a_part_of_the_gradients_is_that_part_of_all(config, random_params, random_batch, random_adapter):
    params, batch = random_params(config), random_batch(config)
    dropped = replace(config, dropout=0.2)
    adapter = random_adapter(params, dropout=0.3)
    masks = draw_masks(dropped, batch.ids.shape, np.random.default_rng(0), adapter, "float64")
    names = list({**params, **adapter.weights})
    others = {"adapter": adapter, "masks": masks}
    everything = gradients(params, batch, config, names, **others)
    assert set(everything) == set(names)
    assert all(grad.any() for grad in everything.values()), "a zero gradient would test nothing"
    rng = np.random.default_rng(1)
    subsets = [[name] for name in names] + [list(rng.choice(names, 5, replace=False)) for _ in range(20)]
    for subset in subsets:
        some = gradients(params, batch, config, subset, **others)
        assert set(some) == set(subset)
        for name in subset:
            assert some[name].tobytes() == everything[name].tobytes(), (name, subset)


def test_a_key_bias_has_no_gradient(config, random_params, random_batch):
    """q · b is the same for every key, and softmax does not see what is added to all of a row's scores."""
    params, batch = random_params(config), random_batch(config)
    grads = gradients(params, batch, config, params)
    for i in range(2):
        bias, weight = (grads[f"blocks.{i}.attn.k_proj.{leaf}"] for leaf in ("bias", "weight"))
        assert np.abs(bias).max() < 1e-14 * np.abs(weight).max()


def test_gradients_are_fresh_arrays(config, random_params, random_batch):
    """Two passes share nothing, so that a caller may scale or add to what it was given."""
    params, batch = random_params(config), random_batch(config)
    first, second = (gradients(params, batch, config, params) for _ in range(2))
    for name in params:
        assert not any(np.shares_memory(first[name], other) for other in (second[name], params[name])), name


def test_the_backward_pass_can_be_run_twice(config, random_params, random_batch):
    params, batch = random_params(config), random_batch(config)
    logits, cache = forward(params, batch.ids, config, lengths=batch.lengths, wanted=tuple(params))
    dlogits = np.ones_like(logits)
    first, second = backward(dlogits, cache), backward(dlogits, cache)
    assert all(first[name].tobytes() == second[name].tobytes() for name in params)
    assert (dlogits == 1.0).all()


def visited(params, batch, config, adapter, wanted):
    """The linear layers that a backward pass goes through, in order."""
    names = []

    def around(back):
        def noting(name, dy):
            names.extend([name] if dy is not None and name.endswith("_proj") else [])
            return back(name, dy)

        return noting

    logits, cache = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter, wanted=tuple(wanted))
    backward(np.ones_like(logits), cache, around=around)
    return names


def test_the_backward_pass_stops_below_the_lowest_trained_layer(config, random_params, random_batch, random_adapter):
    params, batch = random_params(config), random_batch(config)

    def linear_layers(adapter, wanted):
        return visited(params, batch, config, adapter, wanted)

    def in_block(i, *names):
        return [f"blocks.{i}.{name}" for name in names]

    everything = ("mlp.down_proj", "mlp.up_proj", "attn.o_proj", "attn.v_proj", "attn.k_proj", "attn.q_proj")
    last_v = random_adapter(params, targets=("blocks.1.attn.v_proj",), train_head=False)
    last_up = random_adapter(params, targets=("blocks.1.mlp.up_proj",), train_head=False)
    assert linear_layers(None, params) == in_block(1, *everything) + in_block(0, *everything)
    assert linear_layers(last_v, last_v.weights) == in_block(1, *everything[:4])
    assert linear_layers(last_up, last_up.weights) == in_block(1, *everything[:2])
    assert linear_layers(None, ["blocks.0.mlp.down_proj.bias"]) == in_block(1, *everything) + ["blocks.0.mlp.down_proj"]
    assert linear_layers(None, ["ln_f.weight"]) == []


# ------------------------------------------------------------------ what the cache keeps

WIDE = ModelConfig(vocab_size=50, n_positions=32, d_model=64, n_layers=4, n_heads=4, d_ff=256)


def kept(config, adapter=None, wanted=()):
    """(bytes kept, cache) for a batch of 4 rows that fill WIDE's 32 positions."""
    params = initial_params(config, np.random.default_rng(0))
    ids = np.random.default_rng(0).integers(0, 50, (4, 32))
    cache = forward(params, ids, config, adapter=adapter, wanted=tuple(wanted))[1]
    return cache_bytes(cache), cache


def wide_adapter(config, **settings):
    params = initial_params(config, np.random.default_rng(0))
    return init_adapter(params, AdapterConfig(r=4, **settings), np.random.default_rng(0))


def test_nothing_is_kept_when_nothing_is_wanted():
    assert kept(WIDE)[0] == 0
    assert kept(WIDE, wide_adapter(WIDE, targets=["all-linear"]))[0] == 0
    assert kept(replace(WIDE, n_classes=2))[0] <= 4 * 8  # the classifier's places to read, one number a row


def test_lora_keeps_what_its_gradients_read_and_no_more():
    """Numbers a token: what full training and LoRA on q and v have to keep, counted by hand.

    A block in full training keeps two x̂ (2C), the input of q, k and v (C), q, k and v (3C), the weights
    (H T), the inputs of o_proj and up_proj (2C), and GELU's input and output (2F). With q and v adapted it
    keeps the input of neither o_proj, up_proj nor down_proj, and r numbers for each adapter.
    """
    C, F, H, T, r, layers, tokens = 64, 256, 4, 32, 4, 4, 4 * 32
    statistics = 2 * layers + 1  # one 1/σ for each layer norm
    full = layers * (8 * C + 2 * F + H * T) + 2 * C + statistics  # ln_f's x̂ and output on top
    lora = layers * (6 * C + F + H * T + 2 * r) + C + statistics
    ids = 8 * (tokens + T)  # the embeddings' ids, int64
    adapter = wide_adapter(WIDE)
    params = initial_params(WIDE, np.random.default_rng(0))
    full_bytes, lora_bytes = kept(WIDE, wanted=params)[0], kept(WIDE, adapter, adapter.weights)[0]
    assert full_bytes <= 4 * full * tokens + ids
    assert lora_bytes <= 4 * lora * tokens
    assert full_bytes > 0.9 * 4 * full * tokens, "cache_bytes does not see all that is kept"
    assert lora_bytes < 0.66 * full_bytes  # 0.642 as measured; the longer the sequence, the nearer to 1


def test_frozen_weights_keep_nothing():
    """One trained array at a time: the less is trained, and the later, the less is kept."""
    full = kept(WIDE, wanted=parameter_shapes(WIDE))[0]
    last_q = wide_adapter(WIDE, targets=["blocks.3.attn.q_proj"])
    first_q = wide_adapter(WIDE, targets=["blocks.0.attn.q_proj"])
    assert kept(WIDE, last_q, last_q.weights)[0] < 0.17 * full  # measured 0.150
    assert kept(WIDE, first_q, first_q.weights)[0] < 0.6 * full
    assert kept(WIDE, wanted=["ln_f.bias"])[0] < 0.001 * full
    everywhere = wide_adapter(WIDE, targets=["all-linear"])
    assert kept(WIDE, everywhere, everywhere.weights)[0] <= 1.01 * full  # measured 0.993


def test_the_head_alone_keeps_next_to_nothing():
    config = replace(WIDE, n_classes=2)
    adapter = wide_adapter(config, targets=())
    full = kept(config, wanted=parameter_shapes(config))[0]
    for held in (kept(config, wanted=["head.weight"])[0], kept(config, adapter, adapter.weights)[0]):
        assert held <= 4 * 64 * 4 + 4 * 8  # the pooled row of each text, and where it stood
        assert held < 0.001 * full


def holds_arrays(cache):
    """Whether a cache of an operation holds any array, at whatever depth."""
    if isinstance(cache, tuple):
        return any(holds_arrays(item) for item in cache)
    return isinstance(cache, np.ndarray)


def test_blocks_below_the_adapter_hold_no_array():
    adapter = wide_adapter(WIDE, targets=["blocks.3.attn.q_proj"])
    _, cache = kept(WIDE, adapter, adapter.weights)
    holding = {name for name, op_cache in cache.ops.items() if holds_arrays(op_cache)}
    assert holding and all(name.startswith(("blocks.3.", "ln_f", "head")) for name in holding), holding
    assert "blocks.3.ln1" not in holding
    _, cache = kept(WIDE, wanted=parameter_shapes(WIDE))
    assert {name.split(".")[1] for name in cache.ops if "blocks" in name and holds_arrays(cache.ops[name])} == set(
        "0123"
    )


# ------------------------------------------------------------------ dtypes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_follows_the_parameters(config, random_params, random_batch, dtype):
    params, batch = random_params(config, dtype), random_batch(config)
    masks = draw_masks(replace(config, dropout=0.2), batch.ids.shape, np.random.default_rng(0), dtype=dtype)
    there, back = {}, {}
    logits, cache = forward(
        params, batch.ids, config, lengths=batch.lengths, wanted=tuple(params), masks=masks, record=there
    )
    grads = backward(np.ones_like(logits), cache, back)
    assert {a.dtype for group in (masks, there, back, grads) for a in group.values()} == {np.dtype(dtype)}


def test_float32_agrees_with_float64(config, random_params, random_batch):
    batch = random_batch(config)
    single, double = (random_params(config, dtype) for dtype in (np.float32, np.float64))
    here, there = {}, {}
    for params, record in ((single, here), (double, there)):
        forward(params, batch.ids, config, lengths=batch.lengths, record=record)
        record |= {f"d {n}": g for n, g in gradients(params, batch, config, params).items()}
    for name, expected in there.items():
        finite = np.isfinite(expected)
        # The gradient of a key bias is zero but for rounding, so its weight's gradient gives the measure.
        measure = there[name.replace("k_proj.bias", "k_proj.weight")]
        scale = np.sqrt(np.mean(measure[np.isfinite(measure)] ** 2))
        assert np.abs(here[name][finite] - expected[finite]).max() <= 1e-5 * scale, name


# ------------------------------------------------------------------ the loss of a batch


def test_the_loss_by_hand(config, random_params, random_batch):
    params, batch = random_params(config), random_batch(config)
    logits, _ = forward(params, batch.ids, config, lengths=batch.lengths)
    result = loss_and_gradients(params, batch, config)
    losses = []
    for place in np.ndindex(batch.targets.shape):
        if batch.targets[place] != -100:
            p = np.exp(logits[place]) / np.exp(logits[place]).sum()
            losses.append(-math.log(p[batch.targets[place]]))
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-12)
    assert result.n_targets == len(losses)
    assert result.grads == {} and type(result.loss) is float


def test_predictions_are_those_of_the_forward_pass(config, random_params, random_batch):
    params, batches = random_params(config), [random_batch(config, seed=seed) for seed in range(2)]
    for (logits, targets), batch in zip(predict_logits(params, batches, config), batches):
        np.testing.assert_array_equal(logits, forward(params, batch.ids, config, lengths=batch.lengths)[0])
        assert targets is batch.targets


# ------------------------------------------------------------------ first values


def test_a_fresh_language_model_knows_nothing():
    params = initial_params(WIDE, np.random.default_rng(0))
    ids = np.random.default_rng(1).integers(0, 50, (4, 33))
    logits = forward(params, ids[:, :-1], WIDE)[0]
    log_z = np.log(np.exp(logits).sum(axis=-1))
    loss = np.mean(log_z - np.take_along_axis(logits, ids[:, 1:, None], -1)[..., 0])
    assert loss == pytest.approx(math.log(50), rel=0.02)


def test_a_fresh_classifier_knows_nothing(random_batch):
    config = replace(WIDE, n_classes=4)
    params = initial_params(config, np.random.default_rng(0))
    batch = random_batch(config, B=32, T=32)
    assert loss_and_gradients(params, batch, config).loss == pytest.approx(math.log(4), rel=0.05)


@pytest.mark.parametrize("n_layers", [1, 6])
def test_layers_that_write_into_the_stream_start_smaller(n_layers):
    params = initial_params(replace(WIDE, n_layers=n_layers), np.random.default_rng(0))
    for name, array in params.items():
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
    first, again, other = (initial_params(config, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert list(first) == list(parameter_shapes(config))
    assert {name: array.shape for name, array in first.items()} == parameter_shapes(config)
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert not np.array_equal(first["tok_emb.weight"], other["tok_emb.weight"])
    double = initial_params(config, np.random.default_rng(0), np.float64)
    assert all(np.array_equal(array.astype(np.float32), first[name]) for name, array in double.items())
    with pytest.raises(ValueError, match="dtype: got float16, expected float32 or float64"):
        initial_params(config, np.random.default_rng(0), np.float16)


def test_parameters_of_gpt2_small():
    """124,439,808: the number that everybody knows."""
    gpt2 = ModelConfig(vocab_size=50257, n_positions=1024, d_model=768, n_layers=12, n_heads=12, d_ff=3072)
    assert sum(math.prod(shape) for shape in parameter_shapes(gpt2).values()) == 124_439_808


def test_adding_a_head(language, random_params, random_batch):
    params = random_params(language, np.float32)
    with_head, config = add_head(params, language, 5, np.random.default_rng(0))
    assert config == replace(language, n_classes=5)
    assert "head.weight" not in params and list(with_head) == list(parameter_shapes(config))
    assert with_head["head.weight"].shape == (5, 12) and with_head["head.weight"].dtype == np.float32
    assert all(with_head[name] is params[name] for name in params)
    wide, _ = add_head(initial_params(WIDE, np.random.default_rng(0)), WIDE, 100, np.random.default_rng(0))
    assert np.std(wide["head.weight"]) == pytest.approx(0.02, rel=5 / math.sqrt(2 * 6400))
    assert forward(with_head, random_batch(language).ids, config)[0].shape == (3, 5)
    again, config = add_head(with_head, config, 3, np.random.default_rng(0))
    assert again["head.weight"].shape == (3, 12) and config.n_classes == 3
    for n_classes in (1, -1, 0):
        with pytest.raises(ValueError, match="n_classes"):
            add_head(params, language, n_classes, np.random.default_rng(0))


# ------------------------------------------------------------------ dropout


def test_masks_by_name(language):
    masks = draw_masks(replace(language, dropout=0.25), (3, 6), np.random.default_rng(0))
    assert list(masks) == ["embed", "blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp"]
    for mask in masks.values():
        assert mask.shape == (3, 6, 12) and mask.dtype == np.float32
        assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / 0.75)}
    assert draw_masks(language, (3, 6), np.random.default_rng(0)) == {}


def test_dropout_is_off_without_masks_and_acts_with_each(language, random_params, random_batch):
    config = replace(language, dropout=0.5)
    params, ids = random_params(config), random_batch(config).ids
    base = forward(params, ids, language)[0]
    np.testing.assert_array_equal(forward(params, ids, config)[0], base)
    masks = draw_masks(config, ids.shape, np.random.default_rng(0), dtype="float64")
    for name, mask in masks.items():
        assert not np.allclose(forward(params, ids, config, masks={name: mask})[0], base), name
        ones = np.ones_like(mask)
        np.testing.assert_array_equal(forward(params, ids, config, masks={name: ones})[0], base)


def test_a_mask_of_another_shape_is_refused(classifier, random_params, random_batch):
    """Over all positions of a classifier's last block, which works at one, it would fit and mean another."""
    params, batch = random_params(classifier), random_batch(classifier)
    B, T = batch.ids.shape
    mask = np.ones((B, T, classifier.d_model))
    with pytest.raises(ValueError, match=rf"mask: got shape \({B}, {T}, 12\), expected x's \({B}, 1, 12\)"):
        forward(params, batch.ids, classifier, lengths=batch.lengths, masks={"blocks.1.attn": mask})


# ------------------------------------------------------------------ configuration


@pytest.mark.parametrize("field", ["vocab_size", "n_positions", "d_model", "n_layers", "n_heads", "d_ff"])
@pytest.mark.parametrize("value", [0, -3, 2.0, True, "4", None])
def test_sizes_are_whole_numbers_of_at_least_one(language, field, value):
    with pytest.raises(ValueError, match=f"^{field}: got {value!r}, expected a whole number of at least 1"):
        replace(language, **{field: value})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_heads": 5}, "n_heads: 5 does not divide d_model = 12"),
        ({"n_classes": 1}, "n_classes: got 1, expected 0 .* or at least 2"),
        ({"n_classes": -2}, "n_classes: got -2"),
        ({"n_classes": 2.0}, "n_classes: got 2.0, expected a whole number"),
        ({"n_classes": True}, "n_classes: got True"),
        ({"dropout": 1.0}, "dropout: got 1.0, expected 0 ≤ dropout < 1"),
        ({"dropout": -0.1}, "dropout"),
        ({"dropout": math.nan}, "dropout"),
        ({"layer_norm_eps": -1e-5}, "layer_norm_eps"),
        ({"layer_norm_eps": "1e-5"}, "layer_norm_eps"),
    ],
)
def test_configurations_that_are_none(language, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(language, **changes)
