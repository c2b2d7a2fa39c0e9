"""Tier 4: Llama's operations, whole models, decoding and training, with the adapters and the optimiser of tiers 1 to 3.

The head size is 6, not 4, because with 4, GGUF's permutation of rows would be its own inverse (see `formats/names.py`).
"""

from functools import partial

import numpy as np

from .draws import as_float32, bell, bits_of
from .model import generation_case, model_case
from .operations import EDGE, attention_case, norm_case, operation_case
from .training import run_case

SIZES = {"vocab_size": 11, "n_positions": 7, "d_model": 8, "n_layers": 2, "n_heads": 3, "n_kv_heads": 1}
SIZES |= {"head_size": 6, "d_ff": 14, "n_classes": 0, "dropout": 0.0, "rope_theta": 500.0, "rms_norm_eps": 1e-5}
SIZES |= {"tied": True, "attention_bias": False, "mlp_bias": False}
ALL = tuple(f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down"))

llama_case = partial(operation_case, tier=4)
rms_norm_case = partial(norm_case, "rms_norm", tier=4)
grouped_case = partial(attention_case, tier=4)


def rope_case(id, D, theta, positions, *about):
    shape = (*np.shape(positions), 3 * D)
    inputs = {"x": shape, "positions": positions, "theta": theta, "grad.y": shape}
    return llama_case("rope", id, {"head_size": D}, inputs, *about)


def swiglu_case(id, gate, *about):
    shape = np.shape(gate)
    return llama_case("swiglu", id, {}, {"gate": as_float32(gate), "up": shape, "grad.y": shape}, *about)


def head_case(id, targets, *about, **settings):
    inputs = {"x": (2, 3, 5), "weight": (7, 5), "targets": targets}
    settings = {"ignore_index": -100, "grad_loss": 1.0, **settings}
    return llama_case("linear_cross_entropy", id, settings, inputs, *about)


def of_llama(make, id, *about, **changes):
    case = make(id, *about, base=SIZES, **changes)
    return case._replace(tier=4, kind={"model": "llama"}.get(case.kind, f"llama_{case.kind}"))


def llama_cases():
    """The cases of tier 4."""
    mixed = {"blocks.0.attn.k_proj": (1, 2.0), "blocks.0.attn.v_proj": (3, 4.5)}
    mixed |= {"blocks.1.mlp.gate_proj": (4, 2.0), "blocks.1.mlp.down_proj": (2, 5.0)}
    grouped = {"n_heads": 4, "n_kv_heads": 2, "n_layers": 1}
    variants = {"qkv_bias": True, "head_norm": True, "rope_divisors": [1.0, 2.5, 8.0]}
    one_each = {"n_heads": 3, "n_kv_heads": 3, "tied": False, "rope_theta": 1e5, "rms_norm_eps": 1e-3}
    far = bits_of("rms norm, x")
    return [
        rms_norm_case("rms-norm", bell(far, (2, 3, 10)), "x̂ = x / √(mean(x²) + ε), y = x̂ ⊙ w",
                      "the mean taken off; the sum of squares for their mean"),
        rms_norm_case("rms-norm-large-eps", bell(far, (3, 10), 0.3), "ε = 0.1, from the settings",
                      "an ε written into the code, or outside the root", eps=0.1),
        rope_case("rope", 6, 500.0, [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]], "three heads of 6, rows that begin elsewhere",
                  "pairs 2j and 2j + 1; positions from 1; turned the other way"),
        rope_case("rope-large-positions", 10, 1e5, [[8191, 4097]], "three heads of 10, far out, θ = 100000",
                  "angles in float32, which loses three digits; θ written into the code"),
        swiglu_case("swiglu", bell(bits_of("swiglu, gate"), (3, 7), 2.0), "y = a σ(a) ⊙ u", "gate and up exchanged"),
        swiglu_case("swiglu-far", [-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4], "gates far out", "exp overflows", EDGE),
        grouped_case("attention-grouped", 5, 5, "six query heads, two key heads: three queries to a key",
                     "query head h reads key head h mod K; dk not summed over its query heads", H=6, K=2, D=4),
        grouped_case("attention-one-key", 3, 5, "four query heads, one key head; three queries, the last ones",
                     "keys of H heads expected", H=4, K=1, D=6),
        head_case("head-loss", [[4, -100, 0], [6, 2, 1]], "the head and the loss in chunks of 3 rows",
                  "the mean of the chunks' means", chunk=3),
        head_case("head-loss-upstream", [[4, 1, -100], [6, -100, 3]], "chunks of 1 row, and a gradient from above",
                  "grad_loss forgotten", chunk=1, grad_loss=0.375),
        of_llama(model_case, "llama-tied", "all parameters trained; three query heads to one key head",
                 "the tied head's term; k and v of H heads; rotated values"),
        of_llama(model_case, "llama-untied", "a head of its own, biases everywhere, a key head for each query head",
                 "the embedding as head; biases forgotten", **one_each, attention_bias=True, mlp_bias=True, n_layers=1),
        of_llama(model_case, "llama-classifier", "a classifier with dropout; row 1 is padded",
                 "the last query turned by another position than its own", n_classes=3, dropout=0.25, **grouped),
        of_llama(model_case, "llama-variants", "biases as in Qwen 2, norms of heads as in Qwen 3, Llama 3's rope",
                 "a bias in o_proj; norms after the rotation, or over all heads; angles that are multiplied",
                 **variants, **grouped),
        of_llama(model_case, "llama-lora", "LoRA on all seven layers with dropout", "gate_proj and up_proj exchanged",
                 adapter={"names": ALL}, p=0.5, **grouped),
        of_llama(model_case, "llama-dora", "DoRA with rslora on q_proj, k_proj and up_proj of a classifier",
                 "norms of columns; rslora ignored", adapter={"names": ("q_proj", "k_proj", "up_proj"), "kind": "dora",
                 "r": 4, "rslora": True}, n_classes=3, n_layers=1),
        of_llama(model_case, "llama-mixed-ranks", "other ranks and alphas in each of four layers",
                 "one rank or scale for all", adapter={"layers": mixed}),
        of_llama(generation_case, "llama-generate", (), "four new tokens with cached keys and values", "keys cached "
                 "before they are turned, and never turned; the new token at position 0"),
        of_llama(generation_case, "llama-generate-dora", ("k_proj", "gate_proj"), "the same with DoRA, untied",
                 "an adapter left out", kind="dora", n_layers=1, **one_each),
        of_llama(generation_case, "llama-generate-variants", (), "the same variants, and no rotations in block 0 of 2",
                 "keys cached before their norm; a rotation in each block", **variants, unrotated=[0]),
        of_llama(run_case, "llama-train-full", (), "50 steps of all parameters, with dropout and a cosine",
                 "norms that decay: they have one axis", clip_norm=3.0, schedule="cosine", final_share=0.125,
                 optimiser={"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.3}),
        of_llama(run_case, "llama-train-lora", ("q_proj", "down_proj"), "50 steps of LoRA and of a classifier's head",
                 "base weights that move", clip_norm=1.25, schedule="linear", final_share=0.0,
                 optimiser={"eps": 1e-4, "rate_factors": {"lora_B": 4.0}}, n_classes=3, **grouped),
        of_llama(run_case, "llama-train-dora", ("v_proj", "gate_proj"), "50 steps of DoRA", "magnitudes that decay",
                 clip_norm=1.0, schedule="constant", final_share=0.0, kind="dora", optimiser={"weight_decay": 0.3},
                 rms_norm_eps=1e-3),
    ]  # fmt: skip
