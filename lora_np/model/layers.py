"""What every layer has in common, whatever it computes: the functions `run` and `back` that a model is written with.

`run(name, *inputs)` computes one layer, and `back(name, dy)` the gradients of its inputs. Here, once for all
operations, is decided which weights a layer has, whether an adapter is attached to it, which gradients will be asked
for, which dropout mask applies, at which positions it works, and whether a reader wants to see its numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..adapters import KINDS, module_config
from ..ops import (
    attention_backward,
    attention_forward,
    attention_scores,
    dropout_backward,
    dropout_forward,
    embedding_backward,
    embedding_forward,
    gelu_backward,
    gelu_forward,
    layer_norm_backward,
    layer_norm_forward,
    linear_backward,
    linear_forward,
    softmax_forward,
)
from .rows import rows_forward


class LayerCache(NamedTuple):
    operation: tuple | None  # the operation's own cache
    shapes: tuple  # of the inputs


class Gradients(NamedTuple):
    """What a layer's backward pass gives."""

    inputs: tuple  # a gradient for each input, or None
    parameters: dict = {}  # by last name, "weight" or "lora_A"; None where it was not wanted
    inside: dict = {}  # gradients of steps inside the operation, by name, for readers


class Operation(NamedTuple):
    """An operation of `ops/` as a layer."""

    forward: Callable  # (call, module, *inputs) -> (output, cache)
    backward: Callable  # (call, module, dy, cache, earlier) -> Gradients; earlier: the weight's gradient so far
    inside: Callable | None = None  # (call, module, *inputs) -> steps inside the operation, by name, for readers


def forward_layers(call, caches, record=None):
    """`run`, for one forward pass.

    Parameters
    ----------
    call : Call
    caches : dict, to be filled with a LayerCache by layer
    record : dict, to be filled with every activation, by name; or None
    """

    def run(name, *inputs):
        module = call.modules[name]
        operation, shapes = OPERATIONS[module.operation], tuple(x.shape for x in inputs)
        if module.one_position and module.operation != "attention":  # whose keys and values are needed everywhere
            inputs = tuple(at_read(x, call.read) for x in inputs)
        y, cache = operation.forward(call, module, *inputs)
        caches[name] = LayerCache(cache, shapes)
        if record is not None:
            if operation.inside is not None:
                note(record, operation.inside(call, module, *inputs))
            note(record, {output_name(name): y})
        return y

    return run


def backward_layers(cache, grads, record=None):
    """`back`, for the backward pass of one forward pass.

    Parameters
    ----------
    cache : ForwardCache
    grads : dict, to be filled with the wanted parameters' gradients
    record : dict, to be filled with the gradients of activations, by name; or None
    """
    call = cache.call

    def back(name, dy):
        module, (op_cache, shapes) = call.modules[name], cache.ops[name]
        dinputs = (None,) * len(shapes)
        if dy is not None:
            note(record, {output_name(name): dy})
            earlier = grads.get(f"{module.parameters}.weight")
            result = OPERATIONS[module.operation].backward(call, module, dy, op_cache, earlier)
            note(record, result.inside)
            note(grads, {f"{module.parameters}.{leaf}": grad for leaf, grad in result.parameters.items()})
            dinputs = tuple(spread(dx, shape, call.read) for dx, shape in zip(result.inputs, shapes))
        return dinputs if len(dinputs) > 1 else dinputs[0]

    return back


def output_name(name):
    """The name of a layer's output: its own, except that the head's are the logits."""
    return "logits" if name == "head" else name


def note(record, arrays):
    """Write the arrays that are there into a dict, where there is one."""
    for name, array in arrays.items() if record is not None else ():
        if array is not None:
            record[name] = array


def at_read(x, read):
    """The position of each row that a classifier reads, (B, 1, C); x as it is where it is cut to that already."""
    return x[np.arange(len(x)), read][:, None] if x.ndim == 3 and x.shape[1] > 1 else x


def spread(dx, shape, read):
    """The gradient of `at_read`'s input: every position but one gets nothing."""
    if dx is None or dx.shape == shape:
        return dx
    full = np.zeros_like(dx, shape=shape)  # (B, T, C)
    full[np.arange(len(full)), read] = dx[:, 0]
    return full


# ---------------------------------------------------------------- each operation as a layer


def embedding(call, module, ids):
    return embedding_forward(ids, call.params[f"{module.parameters}.weight"], call.operands_wanted(module))


def embedding_back(call, module, dy, cache, earlier):
    # A tied head has left its own term of the table's gradient already: it is added to in place.
    return Gradients((None,), {"weight": embedding_backward(dy, cache, into=earlier).dweight})


def embed(call, module, tok, pos):
    return dropout_forward(tok + pos, call.masks.get(module.mask_name))


def embed_back(call, module, dy, cache, earlier):
    dtok = dropout_backward(dy, cache).dx  # (B, T, C)
    return Gradients((dtok, dtok.sum(axis=0)))  # every row of the batch adds the same positions


def layer_norm(call, module, x):
    weight, bias = call.params[f"{module.name}.weight"], call.params[f"{module.name}.bias"]
    return layer_norm_forward(x, weight, bias, call.config.layer_norm_eps, call.operands_wanted(module))


def layer_norm_back(call, module, dy, cache, earlier):
    dx, dweight, dbias = layer_norm_backward(dy, cache)
    return Gradients((dx,), {"weight": dweight, "bias": dbias})


def linear(call, module, x):
    if call.groups:
        return rows_forward(x, module.parameters, call), None
    weight, bias = call.params[f"{module.parameters}.weight"], call.params.get(f"{module.parameters}.bias")
    wanted = call.operands_wanted(module)
    if module.name not in call.adapter_arrays:
        return linear_forward(x, weight, bias, wanted)
    config = module_config(call.adapter_config, module.name)
    arrays, mask = call.adapter_arrays[module.name], call.masks.get(f"{module.name}.adapter")
    return KINDS[config.kind].forward(x, weight, bias, arrays, config, wanted, mask)


def linear_back(call, module, dy, cache, earlier):
    if module.name in call.adapter_arrays:
        dx, grads = KINDS[call.adapter_config.kind].backward(dy, cache)
        return Gradients((dx,), grads)
    dx, dweight, dbias = linear_backward(dy, cache)
    return Gradients((dx,), {"weight": dweight, "bias": dbias})


def attention(call, module, q, k, v):
    block = module.name.removesuffix("context")
    wanted = [name for name in "qkv" if call.operands_wanted(call.modules[f"{block}{name}_proj"])]
    return attention_forward(q, k, v, call.config.n_heads, wanted, query_positions(call, module))


def attention_inside(call, module, q, k, v):
    block = module.name.removesuffix("context")
    scores = attention_scores(q, k, call.config.n_heads, query_positions(call, module))  # (B, H, Tq, T)
    return {f"{block}scores": scores, f"{block}probs": softmax_forward(scores)[0]}


def query_positions(call, module):
    """(B, 1), where a classifier's one query is among the keys; None: the queries are at the last of them."""
    return call.read[:, None] if module.one_position else None


def attention_back(call, module, dy, cache, earlier):
    block = module.name.removesuffix("context")
    dq, dk, dv, dprobs, dscores = attention_backward(dy, cache)
    return Gradients((dq, dk, dv), inside={f"{block}probs": dprobs, f"{block}scores": dscores})


def gelu(call, module, x):
    return gelu_forward(x, call.operands_wanted(module))


def gelu_back(call, module, dy, cache, earlier):
    return Gradients((gelu_backward(dy, cache).dx,))


def residual(call, module, x, branch):
    branch, cache = dropout_forward(branch, call.masks.get(module.mask_name))
    return x + branch, cache


def residual_back(call, module, dy, cache, earlier):
    return Gradients((dy, dropout_backward(dy, cache).dx))


def pool(call, module, x):
    return x[:, 0], None  # (B, 1, C) -> (B, C)


def pool_back(call, module, dy, cache, earlier):
    return Gradients((dy[:, None],))


OPERATIONS = {
    "embedding": Operation(embedding, embedding_back),
    "embed": Operation(embed, embed_back),
    "layer_norm": Operation(layer_norm, layer_norm_back),
    "linear": Operation(linear, linear_back),
    "attention": Operation(attention, attention_back, attention_inside),
    "gelu": Operation(gelu, gelu_back),
    "residual": Operation(residual, residual_back),
    "pool": Operation(pool, pool_back),
}
