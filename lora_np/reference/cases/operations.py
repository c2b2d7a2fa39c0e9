"""Tier 1: each operation by itself, forward and backward, with edge cases that ports often get wrong.

The gradient of a loss with respect to an array `a` is named `grad.a`. The upstream gradient is one of the inputs.
"""

import inspect
from functools import partial

import numpy as np

from ... import ops
from ...adapters import KINDS, AdapterConfig, dora, scaling
from ...ops.low_rank import thin
from ..plain.calls import OPERATIONS
from .case import ReferenceCase
from .draws import as_float32, bell, bits_of, mask, uniform, whole

# ---------------------------------------------------------------- what the package computes


def operation(kind, settings, t):
    """Compute the arrays that an operation's case records; `settings` and `t` hold the operation's arguments and dy."""
    forward, backward = (getattr(ops, f"{kind}_{way}") for way in ("forward", "backward"))
    names, gradients = map(str.split, OPERATIONS[kind])
    given, accepted = settings | t, inspect.signature(forward).parameters
    output, cache = forward(**{name: value for name, value in given.items() if name in accepted})
    (doutput,) = (value for name, value in given.items() if name.startswith("grad"))
    grads = backward(doutput, cache)
    arrays = {name: getattr(cache, name, output) for name in names}
    arrays |= {name: array[..., 0] for name, array in arrays.items() if name.startswith("inv_")}
    present = [name for name in gradients if name != "bias" or "bias" in t]
    return arrays | {f"grad.{name}": getattr(grads, f"d{name}") for name in present}


def attention(settings, t):
    scores = ops.attention_scores(t["q"], t["k"], settings["n_heads"], positions=t.get("positions"))
    return operation("attention", settings, t) | {"scores": scores}  # the package infers K from the width of k


def encoder_attention(settings, t):
    """Compute `attention` in which each query attends to all of its row's non-padding tokens, as in an encoder."""
    return attention(settings, {**t, "positions": t["lengths"][:, None] - 1})


def cross_entropy(settings, t):
    if (t["targets"] == settings["ignore_index"]).all():  # the package rejects these; in SPEC.md, N is at least 1
        return {"loss": np.zeros_like(t["logits"][0, 0, 0]), "grad.logits": np.zeros_like(t["logits"])}
    return operation("cross_entropy", settings, t)


def linear_cross_entropy(settings, t):
    chunk = settings["chunk"] * len(t["weight"])  # the package's chunk is a number of logits, not of rows
    return operation("linear_cross_entropy", {**settings, "chunk": chunk}, t)


def rope(settings, t):
    cos, sin = ops.rope_tables(t["positions"], settings["head_size"], float(t["theta"]), t["x"].dtype)
    return {"cos": cos, "sin": sin, **operation("rope", {"cos": cos, "sin": sin}, t)}


COMPUTE = {kind: partial(operation, kind) for kind in OPERATIONS}
OTHERS = attention, encoder_attention, cross_entropy, linear_cross_entropy, rope
COMPUTE |= {function.__name__: function for function in OTHERS} | {"grouped_attention": attention}


def adapted_layer(settings, t):
    """A linear layer with LoRA, or with DoRA if the inputs include a magnitude vector."""
    config = AdapterConfig(kind="dora" if dora.MAGNITUDE in t else "lora", **settings)
    adapter = {name: array for name, array in t.items() if name.startswith("lora_")}
    kind, scale, wanted = KINDS[config.kind], scaling(config), ("x", "weight", "bias", *adapter)
    y, cache = kind.forward(t["x"], t["weight"], t["bias"], adapter, config, wanted, t.get("mask"))
    dx, grads = kind.backward(t["grad.y"], cache)
    change = kind.delta(t["weight"], adapter, config)
    u = thin(t["x"], adapter["lora_A"], t.get("mask")).reshape(*y.shape[:-1], -1)
    forward = {"su": scale * u, "y": y}
    if config.kind == "dora":
        dropped, _ = ops.dropout_forward(t["x"], t.get("mask"))
        V = t["weight"] + scale * (adapter["lora_B"] @ adapter["lora_A"])
        forward = {"norm": dora.row_norms(V), "h": ops.linear_forward(dropped, V, None)[0], **forward}
    names = [name for name in ("bias", dora.MAGNITUDE, "weight", "lora_B", "lora_A") if name in grads]
    back = {f"grad.{name}": grads[name] for name in names}
    return {**forward, **back, "grad.x": dx, "delta": change, "merged": t["weight"] + change}


# ---------------------------------------------------------------- a case of each kind
# `about` is the case's description, the mistake that it tests for and, if any, its flags.


def operation_case(kind, id, settings, inputs, *about, tier=1, bits=None):
    """Make a case; `inputs` is a dict, name -> array, or the shape of an array to draw with `bell`."""
    inputs = drawn(bits or bits_of(id), inputs)
    return ReferenceCase(id, tier, kind, settings, inputs, COMPUTE[kind], *about)


def drawn(bits, inputs):
    return {name: bell(bits, of) if isinstance(of, tuple) else np.asarray(of) for name, of in inputs.items()}


def linear_case(id, x_shape, *about, bias=True):
    shapes = {"x": x_shape, "weight": (4, 6), **({"bias": (4,)} if bias else {}), "grad.y": (*x_shape[:-1], 4)}
    return operation_case("linear", id, {}, shapes, *about)


def norm_case(kind, id, x, *about, eps=1e-5, tier=1):
    bits, C = bits_of(id), x.shape[-1:]
    inputs = {"x": x, "weight": as_float32(1.0 + bell(bits, C, 0.5))}
    inputs |= {"bias": C} if kind == "layer_norm" else {}
    return operation_case(kind, id, {"eps": eps}, {**inputs, "grad.y": x.shape}, *about, tier=tier, bits=bits)


layer_norm_case = partial(norm_case, "layer_norm")


def case_of_x(kind, output, id, x, *about):
    return operation_case(kind, id, {}, {"x": as_float32(x), f"grad.{output}": np.shape(x)}, *about)


gelu_case, softmax_case = partial(case_of_x, "gelu", "y"), partial(case_of_x, "softmax", "probs")


def attention_case(id, Tq, Tk, *about, scale=1.0, positions=None, H=3, K=None, D=4, tier=1):
    """A case of attention; with K, each of the K key heads has several query heads."""
    bits, C, C_keys = bits_of(id), H * D, (K or H) * D
    inputs = {"q": as_float32(scale * bell(bits, (2, Tq, C))), "k": (2, Tk, C_keys), "v": (2, Tk, C_keys)}
    inputs |= {} if positions is None else {"positions": positions}
    inputs["grad.context"] = (2, Tq, C)
    kind, settings = ("grouped_attention", {"n_heads": H, "n_kv_heads": K}) if K else ("attention", {"n_heads": H})
    return operation_case(kind, id, settings, inputs, *about, tier=tier, bits=bits)


def cross_entropy_case(id, logits, targets, *about, grad_loss=1.0, ignore_index=-100):
    inputs = {"logits": as_float32(logits), "targets": targets}
    settings = {"ignore_index": ignore_index, "grad_loss": grad_loss}
    return operation_case("cross_entropy", id, settings, inputs, *about)


def dropout_case(id, p, *about):
    bits = bits_of(id)
    inputs = {"x": bell(bits, (3, 8)), "mask": mask(bits, (3, 8), p), "grad.y": (3, 8)}
    return operation_case("dropout", id, {"p": p}, inputs, *about, bits=bits)


def adapted_case(kind, id, *about, rows=(3, 5), p=None, B=1.0, **changes):
    """A case of an adapted linear layer; `B` scales lora_B, and p = None means no dropout mask."""
    bits, settings = bits_of(id), {"r": 2, "alpha": 5.0, "rslora": False, **changes}
    inputs = drawn(bits, {"x": (*rows, 6), "weight": (4, 6), "bias": (4,)})
    inputs |= {"lora_A": uniform(bits, (settings["r"], 6)), "lora_B": as_float32(B * bell(bits, (4, settings["r"])))}
    inputs |= {dora.MAGNITUDE: uniform(bits, (4,), 1.0, 3.0)} if kind == "dora" else {}
    inputs |= {} if p is None else {"mask": mask(bits, (*rows, 6), p)}
    inputs["grad.y"] = bell(bits, (*rows, 4))
    return ReferenceCase(id, 1, kind, settings, inputs, adapted_layer, *about)


lora_case = partial(adapted_case, "lora")
dora_case = partial(adapted_case, "dora", alpha=3.0, norm_gradient=False)


# ---------------------------------------------------------------- the cases

EDGE = ("edge",)


def operation_cases():
    """The cases of tier 1."""
    units = {  # integer multiples of the smallest subnormal, so that all products and sums are exact
        "x": whole(bits_of("tiny"), (3, 6), 100) - 50.0,
        "weight": whole(bits_of("tiny weight"), (4, 6), 7) - 3.0,
        "grad.y": whole(bits_of("tiny grad"), (3, 4), 100) - 50.0,
    }
    subnormal, subnormal32 = (
        {name: a * tiny if name != "weight" else a for name, a in units.items()} for tiny in (2.0**-1074, 2.0**-149)
    )
    norm, soft, loss = (bits_of(name) for name in ("layer norm, x", "softmax, x", "cross entropy, logits"))
    equal = np.full((2, 3, 8), 1.0) * np.array([[-2.5], [0.0], [3.25]])
    equal[1, 1] = as_float32(np.arange(8) / 4.0)
    masked = bell(soft, (4, 5))
    masked[np.triu_indices(4, 1, 5)] = -np.inf
    return [
        linear_case("linear", (2, 3, 6), "y = x Wᵀ + b", "the weight read as (in, out)"),
        linear_case("linear-no-bias", (2, 3, 6), "y = x Wᵀ", "a bias that is added where there is none", bias=False),
        linear_case("linear-one-row", (1, 1, 6), "a single row", "an axis of length 1 that is dropped", EDGE),
        operation_case(
            "linear", "linear-subnormal", {}, subnormal,
            "x and grad.y are whole multiples of the smallest positive number, W is whole: every result is exact, and "
            "grad.weight, a product of two of them, is 0",
            "subnormal numbers flushed to zero (-ffast-math, GPU kernels)", ("edge", "exact"), subnormal32,
        ),
        layer_norm_case("layer-norm", bell(norm, (2, 3, 10)), "x̂ = (x − mean) / √(var + ε), y = x̂ ⊙ w + b",
                        "the variance divided by C − 1; a term of dx forgotten"),
        layer_norm_case("layer-norm-small", bell(norm, (3, 10), 0.01), "a variance near ε, which then matters",
                        "ε outside the root, or added to the standard deviation"),
        layer_norm_case("layer-norm-equal-rows", equal, "rows of equal numbers: variance 0, x̂ exactly 0, y = b",
                        "a division by zero; ε forgotten", EDGE),
        layer_norm_case("layer-norm-offset", as_float32(bell(norm, (3, 10)) + 1000.0),
                        "a mean a thousand times the deviation",
                        "the variance taken as mean(x²) − mean(x)², which cancels", EDGE),
        layer_norm_case("layer-norm-large-eps", bell(norm, (3, 10)), "ε = 0.1, from the settings",
                        "an ε written into the code", eps=0.1),
        gelu_case("gelu", bell(bits_of("gelu, x"), (3, 7), 1.5), "tanh GELU", "the erf form in the tanh form's place"),
        gelu_case("gelu-saturated", [-1e4, -40.0, -10.0, -6.0, 6.0, 10.0, 40.0, 1e4],
                  "inputs far out, where y is 0 or x and the slope 0 or 1", "an overflow in x³ or exp, and then NaN",
                  EDGE),
        gelu_case("gelu-near-zero", [-5e-20, -1e-20, 0.0, 1e-20, 3e-20], "inputs near 0, where y = x/2",
                  "small numbers cut to 0, or an ε added to them", EDGE),
        softmax_case("softmax", bell(soft, (2, 3, 5), 2.0), "p = exp(x) / Σ exp(x), over the last axis",
                     "the wrong axis; Σ dp p forgotten in the gradient"),
        softmax_case("softmax-ties", [[1.0, 1.0, 1.0, 1.0], [2.0, -1.0, 2.0, 2.0]],
                     "equal entries share the probability", "a tie broken", EDGE),
        softmax_case("softmax-80", [[80.0, -80.0, 0.0, 79.0], [-80.0, -80.5, -81.0, -90.0]], "entries of ±80",
                     "the maximum of the whole array taken off, not a row's: in float32 the second is 0/0", EDGE),
        softmax_case("softmax-1e4", [[1e4, -1e4, 0.0, 1e4 - 1], [-1e4, -1e4 - 2, -1e4 - 1, 0.0]], "entries of ±1e4",
                     "the row's maximum not taken off: inf / inf", EDGE),
        softmax_case("softmax-far-below", [[-740.0, -742.0, -741.0, -743.5], [-741.0, -740.5, -744.0, -742.0]],
                     "all entries near −740, where exp is nearly 0", "a search for the maximum that begins at 0", EDGE),
        softmax_case("softmax-masked", masked, "entries of −inf get probability 0 and gradient 0",
                     "the mask put on after the softmax; −inf − −inf", EDGE),
        attention_case("attention", 5, 5, "three heads of 6, causal",
                       "no 1/√D, D or C for √D; heads interleaved; a mask of 0", D=6),
        attention_case("attention-one-token", 1, 1, "T = 1: the context is v", "an axis of length 1 that is dropped",
                       EDGE),
        attention_case("attention-large-scores", 4, 4, "scores beyond ±80", "the row's maximum not taken off", EDGE,
                       scale=40.0),
        attention_case("attention-last-queries", 4, 7, "five heads of 3; four queries, at the last four of seven keys",
                       "the mask's corner at the wrong end: a query at row i may look at key i + Tk − Tq; H written "
                       "into the code", H=5, D=3),
        attention_case("attention-positions", 2, 5, "two queries a row, each at a position of its own",
                       "positions ignored: the query at position p may look at keys 0 … p", EDGE,
                       positions=[[2, 4], [0, 1]]),
        operation_case("embedding", "embedding-repeated", {},
                       {"ids": [[3, 1, 3, 0], [6, 3, 1, 5]], "weight": (7, 5), "grad.y": (2, 4, 5)},
                       "ids 1 and 3 stand at several places, 2 and 4 at none",
                       "repeated ids that count once; rows that no id names not set to 0", bits=bits_of("embedding")),
        cross_entropy_case("cross-entropy", bell(loss, (2, 3, 5), 2.0), [[4, -100, 0], [2, 2, 1]],
                           "the mean over the targets that are not −100",
                           "the sum for the mean; ignored targets counted in the mean"),
        cross_entropy_case("cross-entropy-one-real", bell(loss, (2, 3, 5), 2.0), [[-100, -100, -100], [-100, 1, -100]],
                           "all targets but one ignored", "a mean over all positions", EDGE),
        cross_entropy_case("cross-entropy-none-real", bell(loss, (2, 3, 5), 2.0), [[-100] * 3] * 2,
                           "all targets ignored: N is 1, and loss and gradient are 0", "0 / 0", EDGE),
        cross_entropy_case("cross-entropy-80", [[80.0, -80.0, 0.0], [-80.0, 0.0, 80.0]], [0, 0],
                           "logits of ±80: losses 0 and 160", "log of a probability that has become 0", EDGE),
        cross_entropy_case("cross-entropy-1e4", [[1e4, -1e4, 0.0], [-1e4, 0.0, 1e4]], [1, 2],
                           "logits of ±1e4: losses 2e4 and 0", "exp overflows; log 0", EDGE),
        cross_entropy_case("cross-entropy-ties", [[2.0, 2.0, 2.0, 2.0], [-1.0, 3.0, 3.0, -1.0]], [3, 1],
                           "equal logits", "a tie broken", EDGE),
        cross_entropy_case("cross-entropy-upstream", bell(loss, (4, 5)), [0, 4, 2, 1],
                           "the loss's own gradient is 0.375 and not 1; targets of 2 are ignored",
                           "an upstream gradient that is not multiplied in; all negative targets ignored, and no other",
                           grad_loss=0.375, ignore_index=2),
        dropout_case("dropout", 0.25, "y = x ⊙ mask, mask 0 or 1/(1 − p)", "1/(1 − p) forgotten in the backward pass"),
        dropout_case("dropout-0", 0.0, "nothing dropped: a mask of ones", "a draw where nothing is to be dropped"),
        dropout_case("dropout-near-1", 0.96875, "nearly all dropped, the rest times 32",
                     "p taken for the share that is kept"),
        lora_case("lora", "y = x Wᵀ + b + s (x Aᵀ) Bᵀ, s = α/r = 2.5", "α in place of α/r; A and B exchanged"),
        lora_case("lora-rank-1", "r = 1, so that s = α", "an axis of length 1 that is dropped", EDGE, r=1),
        lora_case("lora-full-rank", "r = min(in, out) = 4", "a square B read transposed", EDGE, r=4),
        lora_case("lora-alpha-0", "α = 0: the base's output, and gradients 0 for A and B", "a division by α", EDGE,
                  alpha=0.0),
        lora_case("lora-b-0", "B = 0, as at the start: dA is 0, dB is not", "A and B exchanged at the start", EDGE,
                  B=0.0),
        lora_case("lora-rslora", "s = α/√r", "α/r where the settings say rslora", rslora=True),
        lora_case("lora-dropout", "a mask on the adapter's input alone",
                  "the base's input masked too; dx of the adapter's path not masked", p=0.25),
        lora_case("lora-dropout-0", "a mask of ones", "a mask applied twice", p=0.0),
        lora_case("lora-dropout-near-1", "nearly all of the adapter's input dropped", "the mask applied to u = x Aᵀ",
                  p=0.96875, rows=(5, 7)),
        lora_case("lora-one-row", "a single row", "an axis of length 1 that is dropped", EDGE, rows=(1, 1)),
        dora_case("dora", "y = x (m ⊙ V/‖V‖)ᵀ + b with V = W + s B A, ‖V‖ held constant going back",
                  "norms of columns for norms of rows; a gradient through the norm"),
        dora_case("dora-dropout", "dropout on what the adapter adds to the base", "x masked in the base's part too",
                  p=0.25),
        dora_case("dora-rslora", "s = α/√r in V = W + s B A", "rslora ignored in DoRA", rslora=True),
        dora_case("dora-norm-gradient", "the exact gradient, through ‖V‖ too", "the term through the norm forgotten",
                  norm_gradient=True),
    ]  # fmt: skip
