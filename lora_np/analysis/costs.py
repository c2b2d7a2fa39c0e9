"""FLOPs and bytes of one training step, counted by carrying it out on arrays without numbers (`hollow.py`).

Counted as FLOPs are the products of two matrices, (n, k) by (k, m) as 2 n k m: one multiplication and one addition
for each of n k m. Elementwise work (softmax, GELU, layer norm, biases, dropout, sums over rows, look-ups) and the
optimiser count nothing. Counted as bytes is what stays: parameters, gradients, AdamW's moments, and what the forward
pass holds for the backward pass. What lives for a moment is not.

**Why LoRA costs two thirds.** Take one square layer, N × N, and one row of x; count multiply-adds.
Full fine-tuning needs three products of N² each:

    y = x Wᵀ        dx = dy W        dW = dyᵀ x                                         3 N²

LoRA at rank R needs no dW. Its own six products cost N R each, since u = x Aᵀ has R numbers:

    y = x Wᵀ + s u Bᵀ,  u = x Aᵀ                                                   N² + 2 N R
    dx = dy W + du A,   du = s dy B                                                N² + 2 N R
    dA = duᵀ x,         dB = s dyᵀ u                                                    2 N R
                                                                            in all 2 N² + 6 N R

so LoRA / full = 2/3 + 2 R/N, two thirds where R is far below N (Schulman and Thinking Machines Lab 2025,
"LoRA Without Regret"). A whole model differs from that in both directions: attention's products between q,
k and v have no weights and cost both nearly the same; a layer that is not adapted costs 2 N² and no more; and below
the lowest trained layer there is no dx either, which in a model of few layers can be worth more than R costs.
"""

from typing import NamedTuple

import numpy as np

from ..adapters import Adapter, adapter_shapes, check_ranks, trained_weights
from ..checked import whole_number
from ..model import ForwardCache, backward, cached_arrays, draw_masks, forward, parameter_shapes
from ..ops import cross_entropy_backward, cross_entropy_forward
from .hollow import Hollow, hollow


class StepBytes(NamedTuple):
    """Bytes, of one training step."""

    parameters: int  # the base's and the adapter's; a head that the adapter carries counts once
    gradients: int
    optimiser: int  # AdamW's two moments
    activations: dict[str, int]  # what the forward pass's cache holds, by the layer that made it, or layer and field
    loss: int  # what the cross-entropy's cache holds


class CountedStep(NamedTuple):
    """A step that was carried out on hollow arrays."""

    params: dict  # the base's and the adapter's
    cache: ForwardCache
    dlogits: np.ndarray | None  # what the cross-entropy's cache holds
    grads: dict
    products: dict  # (layer, "forward" or "backward") -> list of Product


def counted_step(config, B, T, adapter_config=None, wanted=None, dtype="float32"):
    """Carry out one forward and one backward pass, and list the products.

    Parameters
    ----------
    config : ModelConfig
    B, T : int, rows and tokens a row, padding included; T at most config.n_positions
    adapter_config : AdapterConfig or None
    wanted : names of the parameters to train, as in `model.forward`. None: the adapter's arrays that are not
        frozen, or without an adapter the whole model. (): a forward pass alone.
    dtype : of the parameters, and so of all that is computed from them

    Returns
    -------
    CountedStep

    Raises
    ------
    ValueError
        For sizes below 1, a sequence longer than the position table, unknown names or kinds, a target
        that fits no layer, or a rank that its layer has no room for.
    """
    whole_number("B", B)
    whole_number("T", T, most=config.n_positions, why="the model's n_positions")
    params = hollow_arrays(parameter_shapes(config), dtype)
    adapter = None
    if adapter_config is not None:
        check_ranks(params, adapter_config)
        adapter = Adapter(adapter_config, hollow_arrays(adapter_shapes(params, adapter_config), dtype))
    if wanted is None:
        wanted = params if adapter is None else trained_weights(adapter)
    wanted = tuple(dict.fromkeys(wanted))
    masks = draw_masks(config, (B, T), HollowGenerator(), adapter, dtype) if wanted else None
    grads, products, dlogits = {}, {}, None

    def counted(phase):
        def around(run):
            def run_and_count(name, *arrays):
                Hollow.products.clear()
                result = run(name, *arrays)
                products.setdefault((name, phase), []).extend(Hollow.products)
                if phase == "forward":
                    result.owner.maker = result.owner.maker or name
                return result

            return run_and_count

        return around

    ids, passed = np.zeros((B, T), np.int64), {"adapter": adapter, "wanted": wanted, "masks": masks}
    logits, cache = forward(params, ids, config, **passed, around=counted("forward"))
    if wanted:
        _, loss_cache = cross_entropy_forward(logits, np.zeros(logits.shape[:-1], np.int64))
        dlogits = cross_entropy_backward(1.0, loss_cache).dlogits
        grads = backward(dlogits, cache, around=counted("backward"))
    return CountedStep(cache.call.params, cache, dlogits, grads, products)


def hollow_arrays(shapes, dtype="float32"):
    """A named hollow array for each shape."""
    return {name: hollow(shape, np.dtype(dtype), name) for name, shape in shapes.items()}


class HollowGenerator:
    """Stands in for a random generator where a mask is drawn."""

    def random(self, shape, dtype):
        return hollow(shape, dtype)


def step_flops(config, B, T, adapter_config=None, wanted=None):
    """FLOPs of one forward and backward pass, a term for all matrix products of one sort in a layer.

    A term is named after what it belongs to and what it computes:

        blocks.0.attn.q_proj.forward, .dx, .dweight    a linear layer: y, and the gradients of x and W
        blocks.0.attn.q_proj.lora_A.forward, …         the same three of u = x Aᵀ: .dweight is dA
        blocks.0.attn.q_proj.lora_B.forward, …         and of s u Bᵀ: .dx is du, .dweight is dB
        blocks.0.attn.context.forward, .dx             q kᵀ and P v; the gradients of q, k, P and v
        head.forward, .dx, .dweight                    a language model's is tied: .dweight is the token
                                                       embedding's

    A product that no wanted gradient needs is not carried out, and has no term.

    Parameters
    ----------
    config, B, T, adapter_config, wanted : see `counted_step`

    Returns
    -------
    dict, name -> int

    Examples
    --------
    >>> full = step_flops(config, 32, 64)
    >>> lora = step_flops(config, 32, 64, AdapterConfig(r=8))
    >>> sum(lora.values()) / sum(full.values()), flops_by_phase(lora)
    """
    step = counted_step(config, B, T, adapter_config, wanted)
    gradient_of = {id(p): name for name, grad in step.grads.items() for p in getattr(grad, "terms", ())}
    terms = {}
    for (layer, phase), products in step.products.items():
        for product in products:
            if phase == "backward" and id(product) in gradient_of:
                operand, what = gradient_of[id(product)], "dweight"
            else:
                operand, what = next(iter(product.names), ""), "forward" if phase == "forward" else "dx"
            factor = "" if operand.endswith("weight") else operand.rpartition(".")[2]
            term = ".".join(filter(None, (layer, factor, what)))
            terms[term] = terms.get(term, 0) + product.flops
    return terms


def flops_by_phase(terms):
    """Totals of "forward", "dx" (gradients handed on to what lies below) and "dweight".

    The last two are the backward pass.
    """
    totals = {"forward": 0, "dx": 0, "dweight": 0}
    for name, flops in terms.items():
        totals[name.rpartition(".")[2]] += flops
    return totals


def predicted_ratio(config, B, T, adapter_config=None, wanted=None):
    """FLOPs of a step over those of a full fine-tuning step of the same batch.

    Parameters
    ----------
    config, B, T, adapter_config, wanted : see `counted_step`
    """
    part, full = step_flops(config, B, T, adapter_config, wanted), step_flops(config, B, T)
    return sum(part.values()) / sum(full.values())


def step_bytes(config, B, T, adapter_config=None, wanted=None, dtype="float32"):
    """Bytes of parameters, gradients, optimiser state and cached activations.

    Parameters
    ----------
    config, B, T, adapter_config, wanted, dtype : see `counted_step`. A dropout above 0 adds its masks, where
        anything is trained: evaluation drops nothing.

    Returns
    -------
    StepBytes
    """
    step = counted_step(config, B, T, adapter_config, wanted, dtype)
    arrays = cached_arrays(step.cache)
    activations = {getattr(array, "maker", None) or field: array.nbytes for field, array in arrays.items()}
    return StepBytes(
        parameters=tensor_bytes(step.params),
        gradients=tensor_bytes(step.grads),
        optimiser=2 * tensor_bytes(step.grads),
        activations=activations,
        loss=0 if step.dlogits is None else step.dlogits.nbytes,
    )


def tensor_bytes(tensors):
    """Bytes of a flat dict's arrays in memory. AdamW's state is twice those of what it trains."""
    return sum(array.nbytes for array in tensors.values())
