"""Bytes that one training step holds, by name, from shapes.

Each operation has one short function that says what its cache keeps under which `wanted`, field by field as the
cache's NamedTuple in `ops/` has it; a change there is a change of one line here. Those of the kinds of adapter
stand in their own files. An array is
{name: bytes}. One that stands in several caches has one name, and a dict holds a name once. Parameters in the
caches are counted as parameters.

Not counted is what lives for a moment: outputs that no gradient reads, the backward pass's own arrays, the
gradients of single shards before they are added up, and the scaled copies that clipping makes.
"""

import math
from typing import NamedTuple

import numpy as np

from ..adapters import KINDS, module_config
from ..adapters.counting import linear_kept
from ..model.config import positions_read
from .step_plan import plan_step

INDEX_BYTES = np.dtype(np.int64).itemsize  # of ids, positions, lengths and targets


class StepBytes(NamedTuple):
    """Bytes, of one training step."""

    parameters: int  # the base's and the adapter's; a head that the adapter carries counts once
    gradients: int
    optimiser: int  # AdamW's two moments
    activations: dict[str, int]  # what the forward pass's cache holds, by name
    loss: int  # what the cross-entropy's cache holds


def step_bytes(config, B, T, adapter_config=None, wanted=None, dtype="float32"):
    """Bytes of parameters, gradients, optimiser state and cached activations.

    Parameters
    ----------
    config, B, T, adapter_config, wanted : see `plan_step`. A dropout above 0 adds its masks, where
        anything is trained: evaluation drops nothing.
    dtype : of the parameters, and so of all that is computed from them

    Returns
    -------
    StepBytes
    """
    plan = plan_step(config, B, T, adapter_config, wanted)
    item = np.dtype(dtype).itemsize
    trained = sum(math.prod(plan.shapes[name]) for name in plan.trained) * item
    return StepBytes(
        parameters=sum(math.prod(shape) for shape in plan.shapes.values()) * item,
        gradients=trained,
        optimiser=2 * trained,
        activations=activation_bytes(plan, item),
        loss=sum(loss_cache(plan, item).values()),
    )


def activation_bytes(plan, item):
    """Name -> bytes of every array that the forward pass keeps, in execution order.

    Parameters
    ----------
    plan : StepPlan
    item : int, bytes of one number
    """
    config, B, T, asked = plan.config, plan.B, plan.T, plan.call.operands_wanted
    C, F, H = config.d_model, config.d_ff, config.n_heads
    masks = mask_widths(plan)

    def array(name, *shape):
        return {name: math.prod(shape) * item}

    def at(module):
        return positions_read(config, module, T)

    def dropout(place):
        module = place.removesuffix(".adapter")
        return array(f"{place}.mask", B, at(module), masks[place]) if place in masks else {}

    def norm(module):
        x_hat, inv_std = array(f"{module}.x_hat", B, at(module), C), array(f"{module}.inv_std", B, at(module))
        return layer_norm_cache(x_hat, inv_std, asked(module))

    def layer(x, module):
        """One of the blocks' linear layers, adapted or not, that reads x."""
        if module not in plan.call.adapter_parts:
            return linear_kept(x, asked(module))
        rows, shape = B * at(module), plan.shapes[f"{module}.weight"]
        adapter_config = module_config(plan.call.adapter_config, module)
        kept = KINDS[adapter_config.kind].kept(module, x, rows, shape, adapter_config, asked(module), array)
        return kept | dropout(f"{module}.adapter")

    held = embedding_cache({"ids": B * T * INDEX_BYTES}, asked("tok_emb"))
    held |= embedding_cache({"positions": T * INDEX_BYTES}, asked("pos_emb"))
    held |= dropout("embed")
    for i in range(config.n_layers):
        attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
        h = array(f"blocks.{i}.ln1", B, T, C)
        held |= norm(f"blocks.{i}.ln1")
        Tq = at(f"{attn}.q_proj")  # 1 in a classifier's last block
        for name in ("q_proj", "k_proj", "v_proj"):  # one h for all three, or a row of it for q
            held |= layer(h if at(f"{attn}.{name}") == T else array(f"{attn}.q_proj.x", B, Tq, C), f"{attn}.{name}")
        q, k, v = (array(f"{attn}.{name}_proj", B, at(f"{attn}.{name}_proj"), C) for name in "qkv")
        probs = array(f"{attn}.probs", B, H, Tq, T)
        held |= attention_cache(q, k, v, probs, [name for name in "qkv" if asked(f"{attn}.{name}_proj")])
        held |= layer(array(f"{attn}.context", B, Tq, C), f"{attn}.o_proj")
        held |= dropout(attn)

        held |= norm(f"blocks.{i}.ln2")
        held |= layer(array(f"blocks.{i}.ln2", B, Tq, C), f"{mlp}.up_proj")
        held |= gelu_cache(array(f"{mlp}.slope", B, Tq, F), asked(f"{mlp}.up_proj"))
        held |= layer(array(f"{mlp}.gelu", B, Tq, F), f"{mlp}.down_proj")
        held |= dropout(mlp)
    held |= norm("ln_f")
    if config.n_classes:
        return held | linear_kept(array("pooled", B, C), asked("head"))
    return held | linear_kept(array("ln_f", B, T, C), asked("tok_emb", place="head"))


def mask_widths(plan):
    """Name -> last axis of every dropout mask, as `draw_masks` draws them for training."""
    config, adapter_config = plan.config, plan.call.adapter_config
    widths = {}
    if not plan.trained:
        return widths
    if config.dropout:
        places = [f"blocks.{i}.{branch}" for i in range(config.n_layers) for branch in ("attn", "mlp")]
        widths |= dict.fromkeys(["embed", *places], config.d_model)
    if adapter_config is not None and adapter_config.dropout:
        for module in plan.call.adapter_parts:
            widths[f"{module}.adapter"] = plan.shapes[f"{module}.weight"][1]
    return widths


# ---------------------------------------------------------------- one operation each: what its cache keeps


def embedding_cache(ids, wanted):
    return ids if "weight" in wanted else {}


def layer_norm_cache(x_hat, inv_std, wanted):
    return (x_hat if "x" in wanted or "weight" in wanted else {}) | (inv_std if "x" in wanted else {})


def attention_cache(q, k, v, probs, wanted):
    scores_wanted = "q" in wanted or "k" in wanted
    return {
        **(q if "k" in wanted else {}),
        **(k if "q" in wanted else {}),
        **(v if scores_wanted else {}),
        **(probs if wanted else {}),
    }


def gelu_cache(slope, wanted):
    return slope if wanted else {}


def loss_cache(plan, item):
    """The cross-entropy's, whose rows are texts for a classifier and positions for a language model."""
    config = plan.config
    rows = plan.B if config.n_classes else plan.B * plan.T
    return {"dlogits": rows * (config.n_classes or config.vocab_size) * item} if plan.trained else {}
