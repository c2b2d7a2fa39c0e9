"""Tier 2: the model, with every activation in execution order and every gradient in reverse order.

Activations have the same names as in the package, such as `blocks.0.attn.probs`. A gradient has the name of its
activation or parameter, with the prefix `grad.`. A parameter's gradient comes after the gradient of its layer's output.
"""

import math
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from ... import ops
from ...adapters import HEAD, Adapter, AdapterConfig, adapter_deltas, linear_layers, merge
from ...adapters.dora import MAGNITUDE
from ...compress import BlockWeight
from ...model import ARCHITECTURES, backward, draw_masks, forward, parameter_shapes
from ...model.decoder import empty_cache, make_decoder, next_logits
from ...model.sampling import Sampling, draw, next_probabilities
from ...training import trainable_arrays
from ..plain.calls import under
from .case import ReferenceCase
from .draws import as_float32, bell, bits_of, mask, uniform, whole

SIZES = {"dropout": 0.0, "layer_norm_eps": 1e-5, "vocab_size": 11, "n_positions": 7, "d_model": 12, "n_layers": 2}
SIZES |= {"n_heads": 3, "d_ff": 16, "n_classes": 0}
QV = ("q_proj", "v_proj")

# ---------------------------------------------------------------- what the package computes


def config_of(fields):
    """Make a configuration from a case's setting `model`, a dict of fields; their names determine the architecture."""
    kinds = [record.config_class for record in ARCHITECTURES.values()]
    return next(kind for kind in kinds if fields.keys() <= {field.name for field in dataclass_fields(kind)})(**fields)


def objects(settings, t):
    """The package's (config, params, adapter or None) for a case's settings and inputs."""
    config, about = config_of(settings["model"]), settings["adapter"]
    params = {name: t[name] for name in parameter_shapes(config)}
    if "blocks" in settings:
        form = settings["blocks"], t["tok_emb.weight"].dtype
        params |= {f"{layer}.weight": BlockWeight(t[f"{layer}.weight"], *form) for layer in linear_layers(params)}
    if about is None:
        return config, params, None
    layers = about["layers"]
    adapter_config = AdapterConfig(
        targets=tuple(layers),
        rank_pattern={layer: of["r"] for layer, of in layers.items()},
        alpha_pattern={layer: of["alpha"] for layer, of in layers.items()},
        rslora=about["rslora"],
        kind=about["kind"],
        train_head=HEAD in t,
    )
    return config, params, Adapter(adapter_config, {name: t[name] for name in t if ".lora_" in name or name == HEAD})


def model(settings, t):
    config, params, adapter = objects(settings, t)
    activations, back = {}, {}
    wanted = tuple(trainable_arrays(params, adapter))
    others = {"lengths": t["lengths"], "adapter": adapter, "masks": under("mask.", t)}
    logits, cache = forward(params, t["ids"], config, **others, wanted=wanted, record=activations)
    loss, loss_cache = ops.cross_entropy_forward(logits, t["targets"])
    grads = backward(ops.cross_entropy_backward(1.0, loss_cache).dlogits, cache, record=back)
    outputs = {**activations, "loss": loss, **in_reverse_order(back, grads)}
    if adapter is not None:
        merged = merge(params, adapter)
        deltas = adapter_deltas(params, adapter)
        outputs |= {f"delta.{name}": delta for name, delta in deltas.items()}
        outputs |= {f"merged.{name}": merged[name] for name in deltas}
        outputs["merged.logits"], _ = forward(merged, t["ids"], config, lengths=t["lengths"])
    return outputs


def in_reverse_order(activations, params):
    """Order gradients so that each activation's gradient is followed by those of its layer's parameters."""
    ordered, left = {}, dict(params)
    for name, grad in activations.items():
        ordered[f"grad.{name}"] = grad
        layer = "head" if name == "logits" else name
        for parameter in [p for p in left if p.rpartition(".")[0] == layer]:
            ordered[f"grad.{parameter}"] = left.pop(parameter)
    return ordered


def generate(settings, t):
    """Generate greedily, token by token, with cached keys and values."""
    config, params, adapter = objects(settings, t)
    decoder = make_decoder(params, config, adapter)
    past, unread, tokens, outputs = empty_cache(decoder, len(t["ids"])), t["ids"], t["ids"], {}
    for step in range(settings["n_new"]):
        logits, past = next_logits(decoder, unread, past)
        first, second = np.sort(logits, axis=-1)[:, :-3:-1].T
        unread = logits.argmax(axis=-1)[:, None]
        tokens = np.concatenate([tokens, unread], axis=1)
        outputs |= {f"step.{step}.logits": logits, f"step.{step}.margin": first - second}
    cached = {"keys": past.keys[:, :, : past.length], "values": past.values[:, :, : past.length]}
    return {**outputs, "tokens": tokens, **cached}


def sample(settings, t):
    probs = next_probabilities(t["logits"], t["ids"], Sampling(**settings))
    generator = SimpleNamespace(random=lambda n: t["uniform"])  # "draws" the case's numbers
    return {"probs": probs, "tokens": draw(probs, generator)}


# ---------------------------------------------------------------- what the cases draw


def at_trained_size(name, value):
    """Scale standard normal values to the magnitude of trained parameters, with norm weights ≠ 1 and biases ≠ 0."""
    if value.ndim == 1:
        return 0.2 * value + name.endswith("weight")
    return value if "emb" in name else value / math.sqrt(value.shape[1])


def draw_model(bits, sizes, names=(), r=2, kind="lora", rslora=False, layers=None):
    """Draw settings and arrays for a model and its adapter, if any, with weights scaled by `at_trained_size`.

    B is not 0, because with B = 0 most gradients would be 0.

    names : last parts of the adapted layers' names; all of these layers have the rank r and α = 3
    layers : dict, a layer's full name -> (r, α), used instead of `names`
    """
    shapes = parameter_shapes(config_of(sizes))
    params = {name: as_float32(at_trained_size(name, bell(bits, shape))) for name, shape in shapes.items()}
    if layers is None:
        layers = {layer: (r, 3.0) for layer in linear_layers(params) if layer.rpartition(".")[2] in names}
    arrays = {}
    for layer, (r, _) in layers.items():
        W = params[f"{layer}.weight"]
        arrays[f"{layer}.lora_A"] = uniform(bits, (r, W.shape[1]), -0.5, 0.5)
        arrays[f"{layer}.lora_B"] = bell(bits, (W.shape[0], r), 0.3)
        if kind == "dora":
            arrays[f"{layer}.{MAGNITUDE}"] = uniform(bits, (W.shape[0],), 0.5, 1.5)
    named = {layer: {"r": r, "alpha": alpha} for layer, (r, alpha) in layers.items()}
    about = {"kind": kind, "rslora": rslora, "layers": named} if layers else None
    return {"model": sizes, "adapter": about}, {**params, **arrays}


def draw_batch(bits, sizes, lengths):
    """Draw a batch of right-padded rows. For a language model, each row's last target and the padding are ignored."""
    B, T = len(lengths), max(lengths)
    ids = whole(bits, (B, T), sizes["vocab_size"])
    ids[0, : min(T, 2)] = [sizes["vocab_size"] - 1, 0][: min(T, 2)]  # the largest id and the smallest
    if sizes["n_classes"]:
        targets = np.arange(B)[::-1] % sizes["n_classes"]
    else:
        has_next = np.arange(T) < np.array(lengths)[:, None] - (T > 1)  # if T = 1, the only token is its own target
        targets = np.where(has_next, np.roll(ids, -1, axis=1), ops.IGNORE_INDEX)
    return {"ids": ids, "targets": targets, "lengths": np.array(lengths)}


def mask_shapes(settings, arrays, shape, p):
    """A dict, place -> shape of its dropout mask, for ids of `shape`; p is the adapter's dropout probability."""
    config, _, adapter = objects(settings, arrays)
    if adapter is not None:
        adapter = adapter._replace(config=replace(adapter.config, dropout=p))
    masks = draw_masks(config, shape, np.random.default_rng(0), adapter)
    return {place: array.shape for place, array in masks.items()}


# ---------------------------------------------------------------- the cases


def model_case(id, *about, lengths=(5, 3), p=0.0, adapter=None, base=SIZES, **changes):
    """A model case. `about` has the same format as in operations.py; `p` is the adapter's dropout probability."""
    bits, sizes = bits_of(id), {**base, **changes}
    settings, arrays = draw_model(bits, sizes, **(adapter or {}))
    inputs = {**draw_batch(bits, sizes, lengths), **arrays}
    for place, shape in mask_shapes(settings, arrays, inputs["ids"].shape, p).items():
        inputs[f"mask.{place}"] = mask(bits, shape, p if place.endswith(".adapter") else sizes["dropout"])
    return ReferenceCase(id, 2, "model", settings, inputs, model, *about)


def generation_case(id, names, *about, kind="lora", base=SIZES, added=0.0, **changes):
    """A case of greedy generation, in which rounding errors are far too small to change which logit is the largest.

    added : float32 value that is added to every logit
    """
    bits, sizes = bits_of(id), {**base, **changes}
    settings, arrays = draw_model(bits, sizes, names, kind=kind)
    if added:
        arrays["tok_emb.weight"][:, -1], arrays["ln_f.bias"][-1] = 1.0, added  # the tied head multiplies these
    inputs = {"ids": whole(bits, (3, 2), sizes["vocab_size"]), **arrays}
    return ReferenceCase(id, 2, "generate", {**settings, "n_new": 4}, inputs, generate, *about)


def sample_case(id, *about, **changes):
    """A case that samples one token for each row. No uniform number is close to a boundary between two tokens."""
    bits = bits_of(id)
    inputs = {"logits": bell(bits, (5, 11), 1.5), "ids": whole(bits, (5, 3), 11)}
    inputs["ids"][:, 0] = inputs["ids"][:, 2] = inputs["logits"].argmax(axis=1)  # the likeliest token occurs twice
    inputs["uniform"] = as_float32([0.03125, 0.28125, 0.53125, 0.78125, 0.96875])
    settings = {"temperature": 1.0, "top_k": None, "top_p": None, "repetition_penalty": 1.0, **changes}
    return ReferenceCase(id, 2, "sample", settings, inputs, sample, *about)


def model_cases():
    """The cases of tier 2."""
    all_linear = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    every = {"temperature": 0.7, "top_k": 6, "top_p": 0.95, "repetition_penalty": 1.3}
    mixed = {"blocks.0.attn.q_proj": (1, 2.0), "blocks.0.attn.v_proj": (3, 4.5)}
    mixed |= {"blocks.1.mlp.up_proj": (4, 2.0), "blocks.1.mlp.down_proj": (2, 5.0)}
    return [
        model_case("model-lm", "a language model, all parameters trained; row 1 is padded", "targets shifted twice; "
                   "the tied head's term of the embedding's gradient forgotten; a missing residual"),
        model_case("model-classifier", "a classifier with dropout, all parameters trained; row 1 is padded",
                   "pooling at the padding; the last block's query computed at other positions than the one read",
                   n_classes=3, dropout=0.25, n_heads=4, layer_norm_eps=0.01),
        model_case("model-lm-one-token", "B = 1 and T = 1, one block", "axes of length 1 that are dropped", ("edge",),
                   lengths=(1,), n_layers=1, n_heads=6),
        model_case("model-lm-lora", "LoRA on q_proj and v_proj", "adapters on the wrong layers; the backward pass "
                   "that goes on below the lowest trained layer", adapter={"names": QV}, layer_norm_eps=1e-3),
        model_case("model-classifier-lora", "LoRA on all linear layers and a trained head; dropout in the model and, "
                   "with p = 0.5, on the adapters' inputs", "one mask for all adapters; masks in the merged model, "
                   "which is evaluated", adapter={"names": all_linear}, p=0.5, n_classes=3, dropout=0.25),
        model_case("model-lm-rslora", "rsLoRA on q_proj and v_proj, one block: s = α/√r", "α/r where rslora is set",
                   adapter={"names": QV, "r": 4, "rslora": True}, n_layers=1, n_heads=1),
        model_case("model-lm-dora", "DoRA on v_proj and up_proj, one block, with dropout on the adapters' inputs",
                   "norms of columns; m started anew; the base's input masked",
                   adapter={"names": ("v_proj", "up_proj"), "kind": "dora"}, n_layers=1, p=0.25),
        model_case("model-classifier-dora", "DoRA with rslora on q_proj, k_proj and o_proj of a classifier, two heads",
                   "rslora ignored in DoRA; the head not trained",
                   adapter={"names": ("q_proj", "k_proj", "o_proj"), "kind": "dora", "r": 3, "rslora": True},
                   n_classes=3, n_layers=1, n_heads=2, layer_norm_eps=1e-4),
        model_case("model-lm-mixed-ranks", "other ranks and alphas in each of four layers",
                   "one rank or scale for all layers", adapter={"layers": mixed}),
        generation_case("generate-lm", (), "four new tokens with cached keys and values",
                        "positions that start at 0 again; keys cached before the projection's bias"),
        generation_case("generate-lora", QV, "the same with LoRA on q_proj and v_proj, merged or not",
                        "an adapter that is left out while generating", n_heads=4, layer_norm_eps=1e-3),
        generation_case("generate-dora", ("v_proj", "up_proj"), "the same with DoRA on v_proj and up_proj, one block; "
                        "logits below 0", "DoRA merged as LoRA; a largest logit that is at least 0", kind="dora",
                        n_layers=1, n_heads=2, added=-64.0),
        sample_case("sample", "tokens drawn from given uniform numbers", "a token one off; a sum that is not 1"),
        sample_case("sample-penalty", "a repetition penalty alone, on logits above and below 0",
                    "a negative logit divided, which makes its token likelier", repetition_penalty=1.7),
        sample_case("sample-settings", "temperature, top-k, top-p and a repetition penalty together",
                    "their order; a token that occurs twice penalised twice; top-p without the token that crosses p",
                    **every),
    ]  # fmt: skip
