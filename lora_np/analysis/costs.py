"""FLOPs and bytes of one training step, counted by running it on shape-only arrays (`shape_only.py`).

FLOPs are counted only for products of two matrices. A product of an (n, k) and a (k, m) matrix takes 2 n k m FLOPs:
n k m multiplications and as many additions. Elementwise operations (softmax, GELU, layer norm, biases, dropout, sums
over rows, lookups) and the optimiser are counted as zero. Bytes are counted for parameters, gradients, AdamW's moments,
and the arrays that the forward pass stores for the backward pass. Temporary arrays are not counted.

**Why LoRA costs about two thirds of full fine-tuning.** Take one square layer, N × N, and one row of x, and count
multiply-adds. Full fine-tuning needs three products of N² each:

    y = x Wᵀ        dx = dy W        dW = dyᵀ x                                         3 N²

LoRA at rank R needs no dW. Its own six products cost N R each, because u = x Aᵀ has R entries:

    y = x Wᵀ + s u Bᵀ,  u = x Aᵀ                                                   N² + 2 N R
    dx = dy W + du A,   du = s dy B                                                N² + 2 N R
    dA = duᵀ x,         dB = s dyᵀ u                                                    2 N R
                                                                             total 2 N² + 6 N R

so LoRA / full = 2/3 + 2 R/N, which is about two thirds if R is much smaller than N (Schulman and Thinking Machines Lab
2025, "LoRA Without Regret"). A whole model's ratio can be higher or lower than that of a single layer. Attention's
products of q, k and v involve no weights and cost nearly the same with both methods. A layer without an adapter takes
only 2 N² multiply-adds, for y and dx. Below the lowest trained layer, dx is not computed. In a model with few layers,
this can save more than the adapters cost.
"""

from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from ..adapters import Adapter, adapter_shapes, check_ranks, trained_weights
from ..checked import whole_number
from ..model import backward, cached_arrays, draw_masks, forward, parameter_shapes
from .shape_only import ShapeOnly, shape_only


class StepBytes(NamedTuple):
    """The memory of one training step, in bytes."""

    parameters: int  # of the base and the adapter; a head that the adapter replaces is counted only once
    gradients: int
    optimiser: int  # AdamW's two moments
    activations: dict[str, int]  # the forward pass's cached arrays, by layer, or by layer and field
    loss: int  # the gradient of the logits, in the cross-entropy's cache


def counted_step(config, B, T, adapter_config=None, wanted=None, dtype="float32"):
    """Run one forward and one backward pass, and list the matrix products.

    Parameters
    ----------
    config : the model's configuration
    B, T : int, the number of rows, and of tokens per row including padding; T at most config.n_positions
    adapter_config : AdapterConfig or None
    wanted : names of the parameters to train, as in `model.forward`. By default, all of the adapter's arrays
        that are not frozen or, without an adapter, the whole model. With an empty tuple, only the forward pass is run.
    dtype : dtype of the parameters, activations and gradients

    Returns
    -------
    cache : ForwardCache
    logits : array
    grads : dict of arrays; empty if no parameter is trained
    products : list of tuples (layer, "forward" or "dx", Product), in execution order

    Raises
    ------
    ValueError
        If a size is below 1, T exceeds the position table, a name or kind is unknown, a target matches no layer, or a
        rank exceeds min(out, in) of its layer.
    """
    whole_number("B", B)
    whole_number("T", T, most=config.n_positions, why="the model's n_positions")
    params, adapter = shape_only_arrays(parameter_shapes(config), dtype), None
    if adapter_config is not None:
        check_ranks(params, adapter_config)
        adapter = Adapter(adapter_config, shape_only_arrays(adapter_shapes(params, adapter_config), dtype))
    if wanted is None:
        wanted = params if adapter is None else trained_weights(adapter)
    # draw_masks only calls the generator's `random`, which here returns a shape-only array.
    masks = draw_masks(config, (B, T), SimpleNamespace(random=shape_only), adapter, dtype) if wanted else None
    grads, products = {}, []

    def counted(phase, run):
        def run_and_count(name, *arrays):
            ShapeOnly.products.clear()
            result = run(name, *arrays)
            products.extend((name, phase, product) for product in ShapeOnly.products)
            if phase == "forward":
                result.owner.layer = result.owner.layer or name
            return result

        return run_and_count

    ids, options = np.zeros((B, T), np.int64), {"adapter": adapter, "wanted": tuple(wanted), "masks": masks}
    logits, cache = forward(params, ids, config, **options, wrap=partial(counted, "forward"))
    if wanted:
        dlogits = shape_only(logits.shape, logits.dtype)  # the loss has no matrix products
        grads = backward(dlogits, cache, wrap=partial(counted, "dx"))
    return cache, logits, grads, products


def shape_only_arrays(shapes, dtype="float32"):
    """Convert a dict, name -> shape, to a dict, name -> shape-only array."""
    return {name: shape_only(shape, np.dtype(dtype), name) for name, shape in shapes.items()}


def step_flops(config, B, T, adapter_config=None, wanted=None):
    """FLOPs of one forward and backward pass, by layer and kind of product.

    A term's name consists of its layer or array and the kind of product:

        blocks.0.attn.q_proj.forward, .dx, .dweight    a linear layer: y, and the gradients of x and W
        blocks.0.attn.q_proj.lora_A.forward, …         the same for u = x Aᵀ: .dweight is dA
        blocks.0.attn.q_proj.lora_B.forward, …         and for s u Bᵀ: .dx is du, .dweight is dB
        blocks.0.attn.context.forward, .dx             q kᵀ and P v; the gradients of q, k, P and v
        head.forward, .dx, .dweight                    a language model's head is tied: .dweight is the
                                                       token embedding's

    Products that are needed only for gradients of untrained parameters are not computed, so they are not listed.

    Parameters and errors are as in `counted_step`.

    Returns
    -------
    dict, name -> int

    Examples
    --------
    >>> full = step_flops(config, 32, 64)
    >>> lora = step_flops(config, 32, 64, AdapterConfig(r=8))
    >>> sum(lora.values()) / sum(full.values()), flops_by_phase(lora)
    """
    _, _, grads, products = counted_step(config, B, T, adapter_config, wanted)
    weight_of = {id(product): name for name, grad in grads.items() for product in getattr(grad, "terms", ())}
    terms = {}
    for layer, phase, product in products:
        weight = weight_of.get(id(product))
        operand, what = (weight, "dweight") if weight else (product.name, phase)
        factor = "" if operand.endswith("weight") else operand.rpartition(".")[2]
        term = ".".join(filter(None, (layer, factor, what)))
        terms[term] = terms.get(term, 0) + product.flops
    return terms


def flops_by_phase(terms):
    """Total FLOPs by phase: "forward", "dx" (gradients of activations) and "dweight" (gradients of weights)."""
    totals = {"forward": 0, "dx": 0, "dweight": 0}
    for name, flops in terms.items():
        totals[name.rpartition(".")[2]] += flops
    return totals


def predicted_ratio(config, B, T, adapter_config=None, wanted=None):
    """The FLOPs of a step divided by those of full fine-tuning on the same batch. Parameters as in `counted_step`."""
    part, full = step_flops(config, B, T, adapter_config, wanted), step_flops(config, B, T)
    return sum(part.values()) / sum(full.values())


def step_bytes(config, B, T, adapter_config=None, wanted=None, dtype="float32"):
    """Count the bytes of parameters, gradients, optimiser state and cached activations; return `StepBytes`.

    Parameters and errors are as in `counted_step`. Dropout masks are included if dropout is above 0 and at least one
    parameter is trained.
    """
    cache, logits, grads, _ = counted_step(config, B, T, adapter_config, wanted, dtype)
    arrays, gradients = cached_arrays(cache), tensor_bytes(grads)
    activations = {getattr(array, "layer", None) or field: array.nbytes for field, array in arrays.items()}
    loss = logits.nbytes if grads else 0
    return StepBytes(tensor_bytes(cache.call.params), gradients, 2 * gradients, activations, loss)


def tensor_bytes(tensors):
    """The number of bytes of a flat dict's arrays. AdamW's state takes twice as many bytes as the trained arrays."""
    return sum(array.nbytes for array in tensors.values())
