"""FLOPs and bytes counted on arrays without numbers are those of a step on real arrays, and those counted by hand."""

import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lora_np import adapters
from lora_np.adapters import KINDS, AdapterConfig, adapter_shapes, init_adapter, linear_layers, trained_weights
from lora_np.analysis import flops_by_phase, predicted_ratio, scaling, step_bytes, step_flops, tensor_bytes
from lora_np.analysis.costs import shape_only_arrays
from lora_np.analysis.shape_only import shape_only
from lora_np.model import GPT2Config, backward, cache_bytes, draw_masks, forward, parameter_shapes
from lora_np.ops import cross_entropy_backward, cross_entropy_forward, linear_backward, linear_forward
from lora_np.tasks.cost import bytes_of_full
from lora_np.training import AdamW, adamw_update, fine_tuning, train

from .tiny import CONFIGS, tiny_llama

# ------------------------------------------------------------------ counting matrix products as they happen


class Counted(np.ndarray):
    """An array whose matrix products are noted, and whose results are such arrays again.

    A vector as operand makes a sum over rows or columns of the product, however it is written; those are not
    counted. An einsum is a product where its indices span more than its largest operand.
    """

    products = []  # FLOPs of each, in order

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        inputs = [plain(x) for x in inputs]
        kwargs = {name: plain(x) for name, x in kwargs.items()}
        if out is not None:
            kwargs["out"] = tuple(plain(x) for x in out)
        result = getattr(ufunc, method)(*inputs, **kwargs)
        if ufunc is np.matmul and min(np.ndim(x) for x in inputs) > 1:
            Counted.products.append(2 * result.size * inputs[0].shape[-1])
        return out[0] if out is not None else counted(result)

    def __array_function__(self, func, types, args, kwargs):
        if func is np.einsum:
            operands = [plain(x) for x in args[1:]]
            sizes = dict(zip(args[0].split("->")[0].replace(",", ""), [n for x in operands for n in x.shape]))
            if math.prod(sizes.values()) > max(x.size for x in operands):
                Counted.products.append(2 * math.prod(sizes.values()))
            return counted(np.einsum(args[0], *operands, **{name: plain(x) for name, x in kwargs.items()}))
        assert func not in (np.dot, np.inner, np.outer, np.tensordot, np.vdot), f"{func} is not counted"
        return super().__array_function__(func, types, args, kwargs)

    def dot(self, *args, **kwargs):  # a method that goes past both protocols
        raise AssertionError("dot is not counted")


def plain(x):
    return x.view(np.ndarray) if isinstance(x, Counted) else x


def counted(x):
    return x.view(Counted) if isinstance(x, np.ndarray) else x


def flops_of(function, *args, **kwargs):
    """(what the function returns, the FLOPs of the matrix products that it carried out)."""
    Counted.products = []
    result = function(*args, **kwargs)
    return result, sum(Counted.products)


def test_the_counter_by_hand():
    rng = np.random.default_rng(0)
    x, weight = (rng.normal(size=shape).view(Counted) for shape in ((2, 3, 5), (7, 5)))
    (y, cache), flops = flops_of(linear_forward, x, weight)
    assert type(y) is Counted and flops == 2 * (2 * 3) * 5 * 7
    _, flops = flops_of(linear_backward, np.ones((2, 3, 7)), cache)
    assert flops == 2 * (2 * (2 * 3) * 5 * 7)
    assert flops_of(lambda: x @ x.swapaxes(1, 2))[1] == 2 * 2 * 3 * 3 * 5
    assert flops_of(np.einsum, "btc,oc->bto", x, weight)[1] == 2 * 2 * 3 * 5 * 7
    assert flops_of(np.einsum, "btc,btc->bt", x, x)[1] == flops_of(lambda: x @ np.ones(5))[1] == 0
    for product in (lambda: np.dot(x, weight.T), lambda: x.dot(weight.T)):
        with pytest.raises(AssertionError, match="not counted"):
            product()


# ------------------------------------------------------------------ models and trainings

MODELS = {
    "language": (GPT2Config(13, 7, 12, n_layers=2, n_heads=3, d_ff=20), 3, 6),
    "language, deep": (GPT2Config(11, 9, 6, n_layers=3, n_heads=2, d_ff=14, dropout=0.3), 2, 7),
    "language, one token": (GPT2Config(5, 4, 3, n_layers=1, n_heads=1, d_ff=7), 1, 1),
    "classifier": (GPT2Config(13, 7, 12, n_layers=2, n_heads=3, d_ff=20, n_classes=4), 3, 6),
    "classifier, one block": (GPT2Config(17, 8, 10, n_layers=1, n_heads=5, d_ff=9, n_classes=2, dropout=0.2), 5, 3),
    "classifier, deep": (GPT2Config(10, 12, 8, n_layers=3, n_heads=2, d_ff=24, n_classes=3), 2, 11),
    "llama": (tiny_llama(dropout=0.3), 3, 6),
    "llama classifier": (tiny_llama(n_heads=4, n_classes=4), 2, 5),
}
ALL_LINEAR = AdapterConfig(r=2, targets=("all-linear",))
FIXED = {  # adapter, wanted: for all models
    "full": (None, None),
    "forward alone": (None, ()),
    "LoRA, forward alone": (ALL_LINEAR, ()),
    "head": (AdapterConfig(targets=()), None),
    "embeddings": (None, ("tok_emb.weight",)),
    "LoRA-FA, dropped": (adapters.variant_config("lora-fa", replace(ALL_LINEAR, dropout=0.4)), None),
}


def own_names(config, adapter_config):
    """The names of an adapter's arrays, without the model's head."""
    shapes = parameter_shapes(config)
    return [name for name in adapter_shapes(shape_only_arrays(shapes), adapter_config) if name not in shapes]


def random_training(seed, config):
    """(adapter configuration or None, wanted or None): of any kind, on any layers, and any of the arrays wanted."""
    rng, shapes = np.random.default_rng(seed), parameter_shapes(config)
    kind, layers = list(KINDS)[seed % len(KINDS)], linear_layers(shape_only_arrays(shapes))
    targets = rng.choice(layers, rng.integers(1, 4), replace=False).tolist() if rng.random() < 0.7 else ["all-linear"]
    settings = {"rank_pattern": {"k_proj": 3}} if rng.random() < 0.3 else {}
    settings |= {"norm_gradient": True} if kind == "dora" and rng.random() < 0.5 else {}
    settings |= {"dropout": 0.4} if rng.random() < 0.5 else {}
    adapter_config = AdapterConfig(
        int(rng.integers(1, 3)), kind=kind, targets=targets, train_head=rng.random() < 0.5, **settings
    )
    adapter_config = None if rng.random() < 0.15 else adapter_config
    own = own_names(config, adapter_config) if adapter_config else []
    some, base = rng.permutation(own)[: rng.integers(1, 4)], rng.permutation(list(shapes))[: rng.integers(1, 4)]
    wanted = [None, tuple(some), tuple(base), (*some, *base)][rng.integers(4)] if own else tuple(base)
    return adapter_config, wanted


@pytest.fixture
def real_step(random_params, random_batch):
    """Function (config, B, T, adapter_config, wanted, dtype=float64, count=False) -> what a step held, and FLOPs."""

    def make(config, B, T, adapter_config, wanted, dtype=np.float64, count=False):
        params, batch = random_params(config, dtype), random_batch(config, B, T, padded=T > 2)
        adapter = adapter_config and init_adapter(params, adapter_config, np.random.default_rng(1))
        weights = adapter.weights if adapter else {}
        if wanted is None:
            wanted = tuple(trained_weights(adapter) if adapter else params)
        masks = draw_masks(config, (B, T), np.random.default_rng(2), adapter, dtype) if wanted else None
        if count:
            params = {name: counted(array) for name, array in params.items()}
            adapter = adapter and adapter._replace(weights={name: counted(a) for name, a in weights.items()})
        options = {"lengths": batch.lengths, "adapter": adapter, "wanted": wanted, "masks": masks}
        (logits, cache), forward_flops = flops_of(forward, params, batch.ids, config, **options)
        _, loss_cache = cross_entropy_forward(logits, batch.targets, wanted=("logits",) if wanted else ())
        dlogits = cross_entropy_backward(1.0, loss_cache).dlogits
        grads, backward_flops = flops_of(backward, dlogits, cache) if wanted else ({}, 0)
        assert set(grads) == set(wanted)
        if count:
            assert type(logits) is Counted and (dlogits is None or type(dlogits) is Counted)
        held = {"tensors": {**params, **weights}, "grads": grads, "cache": cache, "loss_cache": loss_cache}
        return SimpleNamespace(**held, forward_flops=forward_flops, backward_flops=backward_flops)

    return make


def check_counts(config, B, T, adapter_config, wanted, real_step, dtype=np.float32):
    """The counts are the products that a step carries out and the arrays that it holds."""
    multiplied = real_step(config, B, T, adapter_config, wanted, count=True)
    phases = flops_by_phase(step_flops(config, B, T, adapter_config, wanted))
    assert phases["forward"] == multiplied.forward_flops
    assert phases["dx"] + phases["dweight"] == multiplied.backward_flops

    real = real_step(config, B, T, adapter_config, wanted, dtype)
    sizes = step_bytes(config, B, T, adapter_config, wanted, dtype)
    trainable = {name: real.tensors[name] for name in real.grads}
    zeros = {name: np.zeros_like(array) for name, array in trainable.items()}
    _, m, v = adamw_update(trainable, real.grads, zeros, zeros, 1, 1e-3, AdamW())
    assert sizes.parameters == tensor_bytes(real.tensors)
    assert sizes.gradients == tensor_bytes(real.grads)
    assert sizes.optimiser == tensor_bytes(m) + tensor_bytes(v)
    assert sum(sizes.activations.values()) == cache_bytes(real.cache)
    assert sizes.loss == sum(field.nbytes for field in real.loss_cache if isinstance(field, np.ndarray))


@pytest.mark.parametrize("config, B, T", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("training", [*FIXED, *range(12)])
def test_counts_are_those_of_a_real_step(config, B, T, training, real_step):
    chosen = FIXED[training] if training in FIXED else random_training(training, config)
    check_counts(config, B, T, *chosen, real_step)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_alone_and_many_at_random(kind, classifier, real_step):
    """Of LoRA every parameter of each model too; of the other kinds the adapter's own, in one."""
    rng, adapter_config = np.random.default_rng(0), replace(ALL_LINEAR, kind=kind)
    for config in CONFIGS.values() if kind == "lora" else (classifier,):
        shapes = parameter_shapes(config)
        own = own_names(config, adapter_config)
        names = [*shapes, *own]
        subsets = [(name,) for name in (names if kind == "lora" else own)]
        subsets += [tuple(rng.permutation(names)[: rng.integers(2, 12)]) for _ in range(30)]
        for wanted in subsets:
            check_counts(config, 2, 5, adapter_config, wanted, real_step, np.float64)


def test_shape_only_arrays_share_memory_as_views_do():
    x = shape_only((4, 6))
    views = (x.T, x[1:], x.reshape(2, 12), x.reshape(3, 8)[0])
    assert all(view.base is x for view in views) and x.base is None
    assert all(copy.base is None for copy in (x[[0, 1]], x + 1, x.copy(), x.astype(np.float64)))
    x[0] = 1.0  # nothing to write
    with pytest.raises(TypeError, match="np.dot would not be counted"):
        np.dot(x, x.T)


# ------------------------------------------------------------------ terms by hand


def test_terms_by_hand():
    """One block, LoRA on v alone: every product that the backward pass carries out, and no other."""
    B, T, V, C, F, r = 3, 5, 11, 6, 10, 2
    config = GPT2Config(V, 7, C, n_layers=1, n_heads=2, d_ff=F)
    terms = step_flops(config, B, T, AdapterConfig(r=r, targets=("v_proj",)))
    attn, mlp = "blocks.0.attn.", "blocks.0.mlp."
    square, wide, low = 2 * B * T * C * C, 2 * B * T * C * F, 2 * B * T * C * r
    pairs, head = 2 * B * T * T * C, 2 * B * T * C * V
    assert terms == {
        **{f"{attn}{name}.forward": square for name in ("q_proj", "k_proj", "v_proj", "o_proj")},
        **{f"{attn}v_proj.lora_A.{phase}": low for phase in ("forward", "dweight")},
        **{f"{attn}v_proj.lora_B.{phase}": low for phase in ("forward", "dx", "dweight")},
        f"{attn}context.forward": 2 * pairs,  # q kᵀ and P v
        f"{attn}context.dx": pairs,  # dv
        f"{attn}o_proj.dx": square,
        **{f"{mlp}{name}.{phase}": wide for name in ("up_proj", "down_proj") for phase in ("forward", "dx")},
        "head.forward": head,
        "head.dx": head,
    }
    assert flops_by_phase(terms)["dweight"] == 2 * low


def test_the_other_kinds_by_hand():
    """One layer of C = 6 on 15 rows at rank 2, between others that want x: what each kind adds to two products of W."""
    B, T, C, r = 3, 5, 6, 2
    config = GPT2Config(11, 7, C, n_layers=2, n_heads=2, d_ff=10)
    square, low, made = 2 * B * T * C * C, 2 * B * T * C * r, 2 * C * C * r

    def added(kind, **settings):
        terms = step_flops(config, B, T, AdapterConfig(r=r, targets=("q_proj",), kind=kind, **settings))
        return sum(flops for name, flops in terms.items() if name.startswith("blocks.1.attn.q_proj.")) - 2 * square

    assert added("lora") == added("adalora") == 6 * low  # E multiplies element by element
    assert added("qalora") == 3 * low + 3 * low // 2  # A's products have half as many columns: blocks are of 2
    assert added("vera") == 4 * low  # no gradients of A and B
    assert added("dora") == 4 * low + 2 * made  # W + s B A is made in both passes
    assert added("dora", norm_gradient=True) == 4 * low + 4 * made
    assert added("dora", dropout=0.1) == 4 * low + 2 * made + 2 * square  # what dropout leaves out goes through W alone


def step_arrays(n_classes=0, adapter_config=None, wanted=None):
    """What a step of B = 3, T = 5 keeps, in numbers; C = 6, H = 2, F = 10, rank 2, two blocks."""
    config = GPT2Config(11, 7, 6, n_layers=2, n_heads=2, d_ff=10, n_classes=n_classes)
    activations = step_bytes(config, 3, 5, adapter_config, wanted).activations
    return {name: n_bytes // 4 for name, n_bytes in activations.items()}


def test_what_a_step_keeps_by_hand():
    """Each array once, whoever reads it: q, k and v read one, and LoRA on two of them keeps it once.

    Full training keeps of a block two x̂ and 1/σ of the layer norms, the inputs of q, k and v, of o_proj and of up_proj,
    q, k and v themselves, the attention's weights, and GELU's slope and output. LoRA on q and v keeps the input of
    neither o_proj, up_proj nor down_proj, and r numbers a token for each adapter.
    """
    tokens, C, F, H, T, r = 3 * 5, 6, 10, 2, 5, 2

    def block(i, **arrays):
        return {f"blocks.{i}.{name.replace('__', '.')}": size for name, size in arrays.items()}

    def normed(name):
        return {f"{name}.x_hat": tokens * C, f"{name}.inv_std": tokens}

    attention = {"attn__k_proj": tokens * C, "attn__v_proj": tokens * C, "attn__context__probs": tokens * H * T}
    gelu, above = {"mlp__gelu__slope": tokens * F}, normed("ln_f")
    whole = {name: tokens * C for name in ("ln1", "ln2", "attn__q_proj", "attn__context")} | attention | gelu
    whole |= {"mlp__gelu": tokens * F}
    expected = {"tok_emb.ids": 2 * tokens, "pos_emb.ids": 2 * T, **above, "ln_f": tokens * C}  # ids are int64
    for i in range(2):
        expected |= block(i, **whole) | normed(f"blocks.{i}.ln1") | normed(f"blocks.{i}.ln2")
    assert step_arrays() == expected

    last = block(1, ln1=tokens * C, **attention, **gelu) | normed("blocks.1.ln2") | above
    settings = AdapterConfig(r=r, targets=("blocks.1.attn.*q_proj", "blocks.1.attn.v_proj"))
    low = block(1, attn__q_proj__update__u=tokens * r, attn__v_proj__update__u=tokens * r)
    assert step_arrays(0, settings) == last | low
    of_up = {  # what each kind keeps of up_proj, whatever `in` is
        "lora": {"ln2": tokens * C, "mlp__up_proj__update__u": tokens * r},
        "vera": {"mlp__up_proj__product__u": tokens * r, "mlp__up_proj__scaling__x": tokens * F},
        "qalora": {"mlp__up_proj__update__x": tokens * C // 2, "mlp__up_proj__update__u": tokens * r},  # not x itself
    }
    for kind, arrays in of_up.items():
        settings = AdapterConfig(r=r, targets=("blocks.1.mlp.up_proj",), kind=kind)
        assert step_arrays(0, settings) == block(1, **arrays) | block(1, **gelu) | above
    for nothing in ((0, ALL_LINEAR, ()), (4, ALL_LINEAR, ()), (0, None, ("ln_f.bias",))):
        assert step_arrays(*nothing) == {}
    for head in ((AdapterConfig(targets=()), None), (None, ("head.weight",))):
        assert step_arrays(4, *head) == {"ln_f": 3 * C}  # the pooled row of each text


def test_ratio_of_a_step():
    config = GPT2Config(8000, 128, 256, n_layers=2, n_heads=4, d_ff=1024, n_classes=2)
    assert 0.6 < predicted_ratio(config, 32, 64, AdapterConfig(r=8)) < 2 / 3
    assert predicted_ratio(config, 32, 64, wanted=()) == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("shards", [1, 2])
def test_memory_that_full_fine_tuning_is_said_to_need(shards, random_params, random_batch):
    """It is what Python and NumPy ask for at the peak, except for arrays of a moment."""
    config = GPT2Config(900, 32, 160, n_layers=3, n_heads=4, d_ff=640)
    tracemalloc.start()
    try:
        params, batch = random_params(config, np.float32), random_batch(config, B=4, T=32, padded=False)
        settings = {"learning_rate": 1e-3, "epochs": 3, "shards": shards}
        train(**fine_tuning(params, config, None, lambda rng: [batch], [batch], **settings))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.85 * peak < bytes_of_full(config, 4, 32)[0] < peak


@pytest.mark.slow
def test_costs_of_a_step_are_those_counted():
    from lora_np.experiments.methods import METHODS
    from lora_np.experiments.runs import load_base
    from lora_np.experiments.runs.classify import load_snippets
    from lora_np.experiments.step_time import compare_step_times

    costs = compare_step_times(repeats=1, keys=("full", "qv_r8"))
    batch = load_snippets().epoch_batches(np.random.default_rng(0))[0]
    config = replace(load_base()[1], n_classes=2)
    full, lora = costs.values()
    for cost, of in ((full, None), (lora, METHODS["qv_r8"].adapter)):
        assert cost["flops"] == sum(step_flops(config, *batch.ids.shape, of).values())
        sizes = step_bytes(config, *batch.ids.shape, of)
        assert cost["activation_bytes"] == sum(sizes.activations.values())
        assert (
            cost["bytes"]
            == sum(sizes.activations.values()) + sizes.parameters + sizes.gradients + sizes.optimiser + sizes.loss
        )
    assert lora["flops"] / full["flops"] == predicted_ratio(config, *batch.ids.shape, METHODS["qv_r8"].adapter)
    assert full["ratio"] == 1.0 and lora["ratio"] > 0


@pytest.mark.slow
def test_the_page_on_large_models_has_the_counted_costs():
    page = Path(scaling.__file__).with_name("README.md").read_text(encoding="utf-8")
    for header, *rows in (scaling.memory_table(), scaling.time_table(122e9, 1.25e8)):
        dashes = ["---"] + ["---:"] * (len(header) - 1)
        assert "\n".join(f"| {' | '.join(row)} |" for row in (header, dashes, *rows)) in page


def test_machines_share_the_rows_and_send_what_is_trained():
    config = scaling.MODELS["SmolLM2 135M"]
    one, four = (scaling.costs_of(config, scaling.LORA, 4, 8, machines) for machines in (1, 4))
    assert one.flops == 4 * four.flops
    assert one.activations == pytest.approx(4 * four.activations, rel=1e-3)  # cos and sin of the positions are shared
    assert (one.traffic, four.traffic) == (0, 2 * 4 * 460_800 * 4)  # A and B of q and v in 30 blocks, in float32
    assert (one.base, one.trained) == (four.base, four.trained) == (4 * 134_515_008, 4 * 460_800)
    for machines in (3, 5, 0):
        with pytest.raises(ValueError, match=f"machines: got {machines}, expected"):
            scaling.costs_of(config, scaling.LORA, 4, 8, machines)
