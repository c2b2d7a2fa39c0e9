"""GPT-2 and PEFT files without those libraries: what is written, and that it comes back."""

import json

import numpy as np
import pytest

from lora_np.adapters import (
    Adapter,
    AdapterConfig,
    adapter_deltas,
    compress,
    init_adapter,
    on_given_base,
    start_adapter,
)
from lora_np.formats import (
    load_gpt2,
    load_peft,
    read_tensors,
    save_gpt2,
    save_peft,
    write_tensors,
)
from lora_np.formats.fused import join_factors, split_factors
from lora_np.model import forward

from .tiny import edit_fields, edit_tensors


@pytest.fixture
def saved_peft(classifier, random_params, random_adapter, tmp_path):
    """A PEFT directory of rank 3, and the base's parameters."""
    params = random_params(classifier, np.float32)
    save_peft(tmp_path / "peft", random_adapter(params), params, classifier, "somewhere/base")
    return tmp_path / "peft", params


# ---------------------------------------------------------------- GPT-2


def test_a_file_or_its_folder(config, random_params, tmp_path):
    """And the labels of a classifier, which have names if they are not given."""
    params, labels = random_params(config, np.float32), list("wxyz")[: config.n_classes] or None
    save_gpt2(tmp_path, params, config)
    assert load_gpt2(tmp_path).labels == (labels and [f"LABEL_{k}" for k in range(4)])
    save_gpt2(tmp_path, params, config, labels=labels)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        back = load_gpt2(path)
        assert back.labels == labels and all(np.array_equal(back.params[name], params[name]) for name in params)


def test_a_head_that_is_not_tied(language, random_params, tmp_path):
    params = random_params(language, np.float32)
    save_gpt2(tmp_path, params, language)
    edit_tensors(tmp_path / "model.safetensors", lambda t: t | {"lm_head.weight": params["tok_emb.weight"]})
    assert np.array_equal(load_gpt2(tmp_path).params["tok_emb.weight"], params["tok_emb.weight"])
    edit_tensors(tmp_path / "model.safetensors", lambda t: t | {"lm_head.weight": 2 * params["tok_emb.weight"]})
    with pytest.raises(ValueError, match="lm_head.weight is not wte.weight; expected a head tied to the embedding"):
        load_gpt2(tmp_path)


def test_bfloat16_is_read_to_the_last_bit(tmp_path):
    """Every one of the 65,536 patterns but the NaNs, against the definition: float32's upper half."""
    bits = np.arange(2**16, dtype=np.uint16)
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2**16], "data_offsets": [0, 2**17]}}).encode()
    path = tmp_path / "bf16.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bits.tobytes())
    loaded = read_tensors(path)[0]["w"]
    sign, exponent, fraction = bits >> 15, (bits >> 7) & 255, bits & 127
    finite = exponent < 255
    scale = np.where(exponent == 0, 2.0**-126, 2.0 ** (exponent.astype(float) - 127))
    value = (-1.0) ** sign * scale * ((exponent > 0) + fraction / 128)
    assert loaded.dtype == np.float32 and np.array_equal(loaded[finite], value[finite])
    assert np.isinf(loaded[~finite & (fraction == 0)]).all() and np.isnan(loaded[~finite & (fraction > 0)]).all()


# ---------------------------------------------------------------- PEFT


@pytest.mark.parametrize("kind, targets", [("lora", ("q_proj",)), ("dora", ("q_proj", "v_proj", "up_proj"))])
def test_our_own_names_are_read_too(kind, targets, saved_peft, random_adapter):
    """PEFT on a port of this model that kept its names."""
    folder, params = saved_peft
    adapter = random_adapter(params, kind=kind, targets=targets, train_head=False)
    suffix = {"lora_magnitude_vector": ""}
    tensors = {
        f"base_model.model.{n}{suffix.get(n.rpartition('.')[2], '.weight')}": a for n, a in adapter.weights.items()
    }
    write_tensors(folder / "adapter_model.safetensors", tensors)
    changes = {"rank_pattern": {}, "alpha_pattern": {}, "r": 3, "lora_alpha": 6, "use_dora": kind == "dora"}
    edit_fields(folder / "adapter_config.json", target_modules=list(targets), **changes)
    back = load_peft(folder, params)
    assert (back.config.kind, back.config.targets, back.config.r) == (kind, targets, 3)
    assert all(np.array_equal(back.weights[name], array) for name, array in adapter.weights.items())


WEIGHTS = [np.zeros((4, 5))] * 3  # of q, k and v: only their shapes matter here


@pytest.mark.parametrize("seed", range(60))
def test_a_fused_adapter_is_taken_apart_and_joined_again(seed):
    """To the same arrays, whichever columns of B reach which layers, in whatever order, or none.

    A column of zeros belongs to no layer by its numbers, and goes with the one before it, or with the first.
    """
    rng = np.random.default_rng(seed)
    r = int(rng.integers(1, 7))
    owners = rng.integers(-1, 3, r)  # a layer for each column of B, or none
    owners = np.sort(owners) if seed % 4 == 0 else owners
    reaches = rng.random((3, r)) < 0.8 if seed % 4 == 1 else owners == np.arange(3)[:, None]
    lora_A, lora_B = rng.standard_normal((r, 5)), rng.standard_normal((12, r)) * np.repeat(reaches, 4, axis=0)
    split = split_factors({"lora_A": lora_A, "lora_B": lora_B}, list("qkv"))
    known = owners[owners >= 0]
    if seed % 4 != 1 and known.size and (np.diff(known) >= 0).all():
        filled = known[np.maximum(np.cumsum(owners >= 0) - 1, 0)]
        ranks = [len(split[name]["lora_A"]) if name in split else 0 for name in "qkv"]
        assert ranks == np.bincount(filled, minlength=3).tolist()
    for i, name in enumerate("qkv"):
        update = split[name]["lora_B"] @ split[name]["lora_A"] if name in split else np.zeros((4, 5))
        np.testing.assert_allclose(update, lora_B[4 * i : 4 * i + 4] @ lora_A, rtol=0, atol=1e-15)
    joined, scale = join_factors([(split[name], 2.0) if name in split else None for name in "qkv"], WEIGHTS)
    assert np.array_equal(joined["lora_A"], lora_A) and np.array_equal(joined["lora_B"], lora_B) and scale == 2.0


@pytest.mark.parametrize("missing", [(), ("k",), ("q", "v")])
def test_three_adapters_are_one_of_the_ranks_sum(missing):
    rng = np.random.default_rng(0)
    ranks = {"q": 2, "k": 3, "v": 1}
    split = {}
    for name, r in ranks.items():
        pair = {"lora_A": rng.standard_normal((r, 5)), "lora_B": rng.standard_normal((4, r))}
        split[name] = None if name in missing else pair
    joined, scale = join_factors([own and (own, 0.5) for own in split.values()], WEIGHTS)
    A, B = joined.values()
    assert scale == 0.5 and len(A) == sum(r for name, r in ranks.items() if name not in missing)
    updates = [np.zeros((4, 5)) if own is None else own["lora_B"] @ own["lora_A"] for own in split.values()]
    np.testing.assert_allclose(B @ A, np.concatenate(updates), rtol=0, atol=1e-15)
    back = split_factors(joined, list(split))
    assert set(back) == set(split) - set(missing)
    for name, own in back.items():
        assert all(np.array_equal(array, split[name][leaf]) for leaf, array in own.items())


def test_a_fresh_adapter_goes_across_at_any_rank(language, random_params, tmp_path):
    """B = 0, and three times r is more than the layer's width: the same function, nothing."""
    params = random_params(language, np.float32)
    config = AdapterConfig(r=5, targets=("q_proj", "k_proj", "v_proj"), train_head=False)
    save_peft(tmp_path, init_adapter(params, config, np.random.default_rng(0)), params, language)
    loaded = load_peft(tmp_path, params)
    assert loaded.config.r == 15 and not any(delta.any() for delta in adapter_deltas(params, loaded).values())


@pytest.mark.parametrize("scales", [(2.0, 3.0), (0.0, 3.0), (2.0, 0.0), (0.0, 0.0)])
def test_other_scales_side_by_side(scales):
    rng = np.random.default_rng(0)
    split = [({"lora_A": rng.standard_normal((2, 5)), "lora_B": rng.standard_normal((4, 2))}, s) for s in scales]
    joined, scale = join_factors(split, WEIGHTS[:2])
    expected = np.concatenate([s * own["lora_B"] @ own["lora_A"] for own, s in split])
    np.testing.assert_allclose(scale * joined["lora_B"] @ joined["lora_A"], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": None},
        {"target_modules": "absent"},
        {"layers_to_transform": []},
    ],
    ids=str,
)
def test_targets_that_are_not_named(changes, saved_peft):
    """The oracle tests have all that PEFT itself writes."""
    folder, params = saved_peft
    expected = load_peft(folder, params).weights
    edit_fields(folder / "adapter_config.json", **changes)
    loaded = load_peft(folder, params).weights
    assert list(loaded) == list(expected) and all(np.array_equal(loaded[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", ["vera", "adalora", "other"])
def test_an_adapter_of_another_kind_is_not_written(kind, saved_peft, classifier, random_adapter, tmp_path):
    """PEFT's VeRA takes its factors from another generator, and its AdaLoRA divides by r + 1e-5."""
    params = saved_peft[1]
    if kind == "other":
        adapter = Adapter(AdapterConfig(kind=kind), random_adapter(params).weights)
    else:
        adapter = random_adapter(params, kind=kind)
    with pytest.raises(ValueError, match=f"adapter: got kind '{kind}', expected 'lora' or 'dora'; `compress` converts"):
        save_peft(tmp_path / "out", adapter, params, classifier)
    assert not (tmp_path / "out").exists()
    if kind != "other":  # what the message says helps: at its own rank nothing is lost
        cut = compress(params, adapter, adapter.config.r)
        assert cut.error < 1e-6
        save_peft(tmp_path / "out", cut.adapter, params, classifier)
        loaded, expected = (adapter_deltas(params, a) for a in (load_peft(tmp_path / "out", params), adapter))
        for name, delta in expected.items():
            np.testing.assert_allclose(loaded[name], delta, rtol=0, atol=1e-5 * np.abs(delta).max())


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_start_out_of_the_base_is_not_written_as_it_is(init, language, random_params, tmp_path):
    params = random_params(language, np.float32)
    config = AdapterConfig(r=3, alpha=6.0, targets=("q_proj", "o_proj"), init=init, train_head=False)
    base, start = start_adapter(params, config, np.random.default_rng(0))
    trained = start._replace(weights={name: 1.1 * array for name, array in start.weights.items()})
    with pytest.raises(ValueError, match=f"init: got '{init}', .*expected one of kaiming, gaussian: .*`on_given_base`"):
        save_peft(tmp_path, trained, params, language)
    save_peft(tmp_path, on_given_base(params, start, trained), params, language)
    back = load_peft(tmp_path, params)
    assert back.config.r == 6 and back.config.init == "kaiming"
    ids = np.random.default_rng(0).integers(0, 13, (2, 5))
    expected, _ = forward(base, ids, language, adapter=trained)
    np.testing.assert_allclose(forward(params, ids, language, adapter=back)[0], expected, rtol=0, atol=1e-4)


def test_lengths_that_were_trained_alone(classifier, random_params, random_adapter, tmp_path):
    """B of q is zero, and so are its components; its lengths are not its base's: it is a layer all the same."""
    folder, params = tmp_path / "dora", random_params(classifier, np.float32)
    adapter = random_adapter(params, kind="dora", targets=("q_proj", "v_proj", "up_proj"))
    zero = {name: np.zeros_like(a) for name, a in adapter.weights.items() if name.endswith("q_proj.lora_B")}
    adapter = adapter._replace(weights=adapter.weights | zero)
    save_peft(folder, adapter, params, classifier)
    back = load_peft(folder, params)
    expected, loaded = adapter_deltas(params, adapter), adapter_deltas(params, back)
    for name, delta in expected.items():
        np.testing.assert_allclose(loaded[name], delta, rtol=0, atol=1e-6)
    assert np.abs(loaded["blocks.0.attn.k_proj.weight"]).max() < 1e-6
    save_peft(tmp_path / "again", back, params, classifier)
    first, again = (read_tensors(f / "adapter_model.safetensors")[0] for f in (folder, tmp_path / "again"))
    assert all(again[name].tobytes() == array.tobytes() for name, array in first.items())
