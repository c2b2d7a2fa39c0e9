"""The cases of the gradient check: each operation, each kind of adapter, and whole models.

A case is drawn from a random generator, so each seed gives different weights, inputs and masks.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from .. import ops
from ..adapters import KINDS, Adapter, AdapterConfig, adalora, init_adapter
from ..data import Batch
from ..model import (
    BertConfig,
    GPT2Config,
    LlamaConfig,
    backward,
    draw_masks,
    forward,
    loss_and_gradients,
    parameter_shapes,
    token_log_probs,
)
from ..model.layers import output_name
from ..ops.attention import merge_heads, split_heads
from ..ops.low_rank import low_rank_cache, low_rank_weight_backward
from ..training import dpo, grpo
from .cases import model


class Case(NamedTuple):
    """A forward and backward pass to check.

    run(wanted, **operands, **constants) runs the forward pass and returns (output, pull). pull(doutput) runs the
    backward pass and returns a dict of gradients, keyed by operand; unwanted gradients are None or missing.
    """

    run: object
    operands: dict  # name -> float64 array; the check perturbs it at each index
    constants: dict = {}  # the other arguments, by name: masks, ids, frozen weights
    together: str | None = None  # name of the single result row for all operands; None for one row per operand
    selective: bool = True  # whether the forward pass accepts the names of the wanted gradients


# ---------------------------------------------------------------- the operations


def named(grads):
    """Return a backward pass's gradients as a dict keyed by operand: the field dx becomes the entry "x"."""
    return {field.removeprefix("d"): grad for field, grad in grads._asdict().items()}


def operation(rng, case, shapes, size=1.0, mask=None, selective=True, **constants):
    """The Case for one operation.

    Parameters
    ----------
    case : str; the part before a colon is the operation's name in `lora_np.ops`
    shapes : dict, operand -> shape
    size : standard deviation of the operands
    mask : shape of a dropout mask, or None
    selective : whether the forward pass accepts `wanted`
    constants : other arguments of the forward pass
    """
    forward, backward = (getattr(ops, f"{case.partition(':')[0]}_{way}") for way in ("forward", "backward"))
    constants |= {} if mask is None else {"mask": ops.dropout_mask(mask, 0.4, rng, "float64")}

    def run(wanted, **arguments):
        output, cache = forward(**arguments, **({"wanted": wanted} if selective else {}))
        return output, lambda doutput: named(backward(doutput, cache))

    return Case(run, normal(rng, size, **shapes), constants, selective=selective)


def normal(rng, size=1.0, **shapes):
    return {name: size * rng.normal(size=shape) for name, shape in shapes.items()}


def attention_steps(rng):
    """The Case for the gradients of scores and probs; the operands, two arrays of zeros, are added to these."""

    def run(wanted, scores, probs, q, k, v):
        nudged, _ = ops.softmax_forward(ops.attention_scores(q, k, 3) + scores)
        context = merge_heads((nudged + probs) @ split_heads(v, 3))
        _, cache = ops.attention_forward(q, k, v, 3)
        return context, lambda dcontext: named(ops.attention_backward(dcontext, cache))

    zeros = {name: np.zeros((2, 3, 5, 5)) for name in ("scores", "probs")}
    return Case(run, zeros, normal(rng, **QKV), selective=False)


def low_rank_weight(rng):
    """The Case for M = e B A, the low-rank update in DoRA's norm; e is its scale."""

    def run(wanted, A, B):
        cache = low_rank_cache(np.ones((2, 6)), A, 1.7, B, wanted, None)
        return 1.7 * (B @ A), lambda dM: named(low_rank_weight_backward(dM, cache))

    return Case(run, normal(rng, A=(3, 6), B=(4, 3)))


def reward_loss(rng):
    """The Case for GRPO's loss; some tokens are clipped on either side, and two are padding."""
    real = np.array([[True] * 4, [True, True, True, False], [False, True, True, True]])
    inputs = normal(rng, 0.5, old=real.shape, reference=real.shape) | {"advantage": np.array([1.2, -0.9, 0.4])}

    def run(wanted, log_probs, old, **constants):
        loss, dlog_probs = grpo(log_probs, real=real, old=old, beta=0.3, **constants)
        return loss, lambda dloss: {"log_probs": dloss * dlog_probs}

    return Case(run, normal(rng, 0.5, log_probs=real.shape), inputs, selective=False)


def preference_loss(rng):
    """The Case for DPO's loss."""

    def run(wanted, log_probs, reference):
        loss, dlog_probs = dpo(log_probs, reference, 0.7)
        return loss, lambda dloss: {"log_probs": dloss * dlog_probs}

    return Case(run, normal(rng, 3.0, log_probs=(4, 2)), normal(rng, 3.0, reference=(4, 2)), selective=False)


# ---------------------------------------------------------------- adapters, of every kind


def perturb(arrays, rng):
    """Move arrays away from their initial values: with B = 0, most gradients are zero, which would hide mistakes."""
    return {name: array + 0.3 * rng.normal(size=array.shape) for name, array in arrays.items()}


# DoRA's paper treats the norm as constant, but the norm varies when a whole layer is perturbed. So the exact gradient
# is checked, and the paper's gradient has separate cases, in which the norm is an input.
EXACT = {"dora": {"norm_gradient": True}}


def adapted_linear(rng, kind, trained_base=False, bias=True, dropout=0.0, given_norm=False, **settings):
    exact = {} if given_norm else EXACT.get(kind, {})
    config = AdapterConfig(kind=kind, r=3, alpha=5.0, **exact, **settings)
    x = rng.normal(size=(2, 3, 6))
    base = normal(rng, weight=(4, 6), bias=(4,)) if bias else {**normal(rng, weight=(4, 6)), "bias": None}
    adapter = perturb(KINDS[kind].init(base["weight"], config, rng), rng)

    def run(wanted, x, weight, bias, mask=None, norm=None, **adapter):
        norm = {} if norm is None else {"norm": norm}
        y, cache = KINDS[kind].forward(x, weight, bias, adapter, config, wanted, mask, **norm)

        def pull(dy):
            dx, grads = KINDS[kind].backward(dy, cache)
            return {"x": dx, **grads}

        return y, pull

    constants = {"mask": ops.dropout_mask(x.shape, dropout, rng, x.dtype)} if dropout else {}
    constants |= {"norm": 1.0 + rng.random(4)} if given_norm else {}
    trained, frozen = (base, {}) if trained_base else ({}, base)
    return Case(run, {"x": x, **trained, **adapter}, {**frozen, **constants})


def adalora_orthogonality(rng):
    """The Case for the orthogonality term of AdaLoRA's loss."""

    def run(wanted, **factors):
        distance, grads = adalora.orthogonality(factors)
        return distance, lambda d: {name: d * grad for name, grad in grads.items()}

    return Case(run, normal(rng, lora_A=(3, 6), lora_B=(4, 3)), selective=False)


# ---------------------------------------------------------------- whole models


# All sizes differ, so that swapped axes are detected. Llama's ε is of the order of mean(x²).
GPT2 = partial(GPT2Config, vocab_size=7, n_positions=5, d_model=6, n_heads=3, d_ff=8)
LLAMA = partial(LlamaConfig, vocab_size=7, n_positions=5, d_model=8, head_size=6, d_ff=9, rope_theta=3.0)
LLAMA = partial(LLAMA, rms_norm_eps=0.5, n_heads=2, n_kv_heads=1)
BERT = partial(BertConfig, vocab_size=7, n_positions=5, d_model=6, n_heads=3, d_ff=8, n_types=3, layer_norm_eps=0.1)


def draw_model(rng, n_classes=0, dropout=0.0, kind=None, n_layers=2, base=GPT2):
    """Draw (config, params, adapter or None, batch, masks), with weights of the same magnitude as a trained model's.

    base : function that makes the configuration from the other fields
    """
    config = base(n_layers=n_layers, n_classes=n_classes, dropout=dropout)
    shapes = parameter_shapes(config)
    params = {name: model.at_trained_size(name, rng.normal(size=shape)) for name, shape in shapes.items()}
    adapter = None
    if kind is not None:
        settings = {"dropout": dropout, "rank_pattern": {"q_proj": 1, "*.mlp.*": 3}, "alpha_pattern": {"v_proj": 4.0}}
        adapter_config = AdapterConfig(2, 2.5, ("all-linear",), kind=kind, **settings, **EXACT.get(kind, {}))
        adapter = Adapter(adapter_config, perturb(init_adapter(params, adapter_config, rng).weights, rng))
    arrays = model.draw_batch(rng.bit_generator, {"vocab_size": 7, "n_classes": n_classes}, (4, 2))
    batch = Batch(**arrays, rows=np.arange(2))  # padded on the right, as in the reference cases
    return config, params, adapter, batch, draw_masks(config, batch.ids.shape, rng, adapter, "float64")


def whole_model(rng, n_classes=0, dropout=0.0, kind=None, class_weights=None, base=GPT2, recompute=False):
    """The Case for all trainable parameters: those of the adapter if there is one, else those of the model."""
    config, params, adapter, batch, masks = draw_model(rng, n_classes, dropout, kind, base=base)

    def run(wanted, batch, masks, frozen=None, **trained):
        weights, attached = (trained, None) if frozen is None else (frozen, Adapter(adapter.config, trained))
        loss, _, grads = loss_and_gradients(weights, batch, config, attached, wanted, masks, class_weights, recompute)
        return loss, lambda dloss: {name: dloss * grad for name, grad in grads.items()}

    trained, frozen = (adapter.weights, {"frozen": params}) if adapter else (params, {})
    return Case(run, trained, {"batch": batch, "masks": masks, **frozen}, "all parameters")


def chosen_tokens(rng, kind=None, base=GPT2, recompute=False):
    """The Case for all trainable parameters of a function of the targets' log probabilities."""
    config, params, adapter, batch, _ = draw_model(rng, kind=kind, base=base)
    slopes = rng.normal(size=batch.targets.shape)

    def run(wanted, frozen=None, **trained):
        weights, attached = (trained, None) if frozen is None else (frozen, Adapter(adapter.config, trained))
        log_probs, back = token_log_probs(weights, batch.ids, batch.targets, config, attached, wanted, recompute)
        return (slopes * log_probs).sum(), lambda dloss: back(dloss * slopes)

    trained, frozen = (adapter.weights, {"frozen": params}) if adapter else (params, {})
    return Case(run, trained, frozen, "all parameters")


def activations(rng, n_classes=0, dropout=0.0, kind=None, base=GPT2):
    """The Case for the gradients of all named activations; the operands, arrays of zeros, are added to these."""
    config, params, adapter, batch, masks = draw_model(rng, n_classes, dropout, kind, n_layers=1, base=base)
    settings = {"lengths": batch.lengths, "adapter": adapter, "masks": masks}
    settings["wanted"] = tuple(name for name in params if "emb" in name)

    def run(wanted, params, batch, **nudges):
        def nudged(layer):
            return lambda name, *inputs: layer(name, *inputs) + nudges.get(output_name(name), 0.0)

        logits, cache = forward(params, batch.ids, config, **settings, wrap=nudged)
        loss, loss_cache = ops.cross_entropy_forward(logits, batch.targets)

        def pull(dloss):
            grads = {}
            backward(ops.cross_entropy_backward(dloss, loss_cache).dlogits, cache, record=grads)
            return grads

        return loss, pull

    record = {}
    forward(params, batch.ids, config, **settings, record=record)
    # The recorded scores and probs are copies; the case "attention: steps between" checks their gradients.
    zeros = {n: np.zeros_like(a) for n, a in record.items() if not n.endswith(("scores", "probs"))}
    return Case(run, zeros, {"params": params, "batch": batch}, "all activations", selective=False)


# ---------------------------------------------------------------- the table of cases

ADAPTER_VARIANTS = {
    "": {},
    ": no bias": {"bias": False},
    ": rslora": {"rslora": True},
    ": dropout": {"dropout": 0.4},
    ": trained base": {"trained_base": True, "dropout": 0.4},
}
DORA_AS_IN_PAPER = {"kind": "dora", "trained_base": True, "given_norm": True}
ROPE = ops.rope_tables(np.array([[4, 0, 7], [1, 2, 3]]), 6, 5.0, "float64")
GROUPED = {"q": (2, 5, 24), "k": (2, 5, 8), "v": (2, 5, 8)}
X, QKV = (2, 3, 5), {"q": (2, 5, 12), "k": (2, 5, 12), "v": (2, 5, 12)}
SOME_TWICE = np.array([[3, 1, 3, 0], [6, 3, 1, 5]])  # row indices of a table with 7 rows; 2 and 4 do not occur
TARGETS = np.array([[4, ops.IGNORE_INDEX, 0], [2, 2, ops.IGNORE_INDEX]])
CLASS_WEIGHTS = np.array([0.3, 2.0, 1.1, 0.7, 1.9])
LLAMAS = {  # case -> its base
    "H/K = 1": partial(LLAMA, n_heads=2, n_kv_heads=2),
    "H/K = 2": partial(LLAMA, n_heads=4, n_kv_heads=2),
    "H/K = 3": partial(LLAMA, n_heads=3, n_kv_heads=1, tied=False),
    "untied, biases": partial(LLAMA, tied=False, attention_bias=True, mlp_bias=True),
    "variants": partial(LLAMA, qkv_bias=True, head_norm=True, rope_divisors=(1.0, 2.0, 5.0), unrotated=(1,)),
}
POOLINGS = {pooling: partial(BERT, pooling=pooling) for pooling in ("mean", "cls")}
OPERATIONS = {  # case -> arguments of `operation`
    "linear": {"shapes": {"x": X, "weight": (4, 5), "bias": (4,)}},
    "linear: no bias": {"shapes": {"x": X, "weight": (4, 5)}},
    # ε is so large that a backward pass that omits it fails the check.
    "layer_norm": {"shapes": {"x": X, "weight": (5,), "bias": (5,)}, "eps": 0.1},
    "rms_norm": {"shapes": {"x": X, "weight": (5,)}, "eps": 0.5},
    "rope": {"shapes": {"x": (2, 3, 12)}, "selective": False, "cos": ROPE[0], "sin": ROPE[1]},
    "gelu": {"shapes": {"x": (3, 4, 5)}, "size": 2.0},
    "gelu_erf": {"shapes": {"x": (3, 4, 5)}, "size": 2.0},
    "swiglu": {"shapes": {"gate": (3, 4, 5), "up": (3, 4, 5)}, "size": 2.0},
    "softmax": {"shapes": {"x": X}, "selective": False},
    "mean_pool": {"shapes": {"x": X}, "lengths": np.array([3, 2])},
    "attention": {"shapes": QKV, "n_heads": 3},
    "attention: Tq < Tk": {"shapes": {"q": (2, 4, 12), "k": (2, 7, 12), "v": (2, 7, 12)}, "n_heads": 3},
    "attention: 3 query heads a key head": {"shapes": GROUPED, "n_heads": 6},
    "attention: padded keys": {"shapes": QKV, "n_heads": 3, "positions": np.array([[4], [2]])},
    "attention: one key head": {"shapes": {"q": (2, 4, 18), "k": (2, 7, 6), "v": (2, 7, 6)}, "n_heads": 3},
    "embedding": {"shapes": {"weight": (7, 5)}, "ids": SOME_TWICE},
    "cross_entropy": {"shapes": {"logits": X}, "size": 2.0, "targets": TARGETS},
    "cross_entropy: weights": {"shapes": {"logits": X}, "size": 2.0, "targets": TARGETS, "weights": CLASS_WEIGHTS},
    # Two of the six rows are ignored; the other four are computed in chunks of 3 and 1.
    "linear_cross_entropy": {"shapes": {"x": X, "weight": (7, 5)}, "targets": TARGETS, "chunk": 21},
    "linear_cross_entropy: one chunk": {"shapes": {"x": X, "weight": (7, 5)}, "targets": TARGETS},
    "token_log_probs": {"shapes": {"x": X, "weight": (7, 5)}, "targets": TARGETS, "chunk": 21},
    "dropout": {"shapes": {"x": (3, 4, 5)}, "mask": (3, 4, 5), "selective": False},
    "scale": {"shapes": {"x": X, "factor": (5,)}},
    "low_rank": {"shapes": {"x": (2, 3, 6), "A": (3, 6), "e": (3,), "B": (4, 3)}, "mask": (2, 3, 6)},
}
PARTS = {  # name -> function that draws a Case with a generator
    **{case: partial(operation, case=case, **arguments) for case, arguments in OPERATIONS.items()},
    "attention: steps between": attention_steps,
    "low_rank_weight": low_rank_weight,
    "grpo": reward_loss,
    "dpo": preference_loss,
    **{
        f"{kind} adapter{variant}": partial(adapted_linear, kind=kind, **settings)
        for kind in KINDS
        for variant, settings in ADAPTER_VARIANTS.items()
    },
    "dora adapter: norm held": partial(adapted_linear, **DORA_AS_IN_PAPER),
    "dora adapter: norm held, dropout": partial(adapted_linear, **DORA_AS_IN_PAPER, dropout=0.4),
    "adalora: orthogonality": adalora_orthogonality,
}
WHOLE_MODELS = {
    "language model": whole_model,
    "language model: activations": partial(activations, dropout=0.2),
    **{f"language model: {kind}": partial(whole_model, dropout=0.2, kind=kind) for kind in KINDS},
    "language model: log probabilities": chosen_tokens,
    "llama: log probabilities": partial(chosen_tokens, kind="lora", base=LLAMAS["H/K = 3"], recompute=True),
    "classifier": partial(whole_model, n_classes=3, dropout=0.2),
    "classifier: class weights": partial(whole_model, n_classes=5, class_weights=CLASS_WEIGHTS),
    "classifier: activations": partial(activations, n_classes=3, kind="lora"),
    **{f"classifier: {kind}": partial(whole_model, n_classes=3, dropout=0.2, kind=kind) for kind in KINDS},
    **{f"llama: {name}": partial(whole_model, base=base) for name, base in LLAMAS.items()},
    "llama: recompute": partial(whole_model, base=LLAMA, dropout=0.2, recompute=True),
    "llama: activations": partial(activations, base=LLAMAS["untied, biases"], dropout=0.2),
    "llama: variants, activations": partial(activations, base=partial(LLAMAS["variants"], unrotated=()), kind="lora"),
    **{f"llama: {kind}": partial(whole_model, base=LLAMA, dropout=0.2, kind=kind) for kind in KINDS},
    "llama classifier": partial(whole_model, n_classes=3, base=LLAMAS["H/K = 3"], dropout=0.2),
    "llama classifier: variants": partial(whole_model, n_classes=3, base=LLAMAS["variants"]),
    "llama classifier: activations": partial(activations, n_classes=3, base=LLAMAS["H/K = 3"], kind="lora"),
    "llama classifier: recompute": partial(whole_model, n_classes=3, base=LLAMA, kind="lora", recompute=True),
    **{f"llama classifier: {kind}": partial(whole_model, n_classes=3, base=LLAMA, kind=kind) for kind in KINDS},
    **{f"bert: {name}": partial(whole_model, n_classes=3, dropout=0.2, base=base) for name, base in POOLINGS.items()},
    "bert: activations": partial(activations, n_classes=3, base=POOLINGS["cls"], dropout=0.2),
    "bert: recompute": partial(whole_model, n_classes=3, base=BERT, kind="lora", recompute=True),
    **{f"bert: {kind}": partial(whole_model, n_classes=3, dropout=0.2, base=BERT, kind=kind) for kind in KINDS},
}
CASES = PARTS | WHOLE_MODELS
