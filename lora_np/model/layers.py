"""The functions `run` and `back`, with which a model is written.

`run(name, *inputs)` computes one layer, and `back(name, dy)` computes the gradients of its inputs. For every
operation, this file decides which weights a layer uses, whether an adapter is attached, which gradients are needed,
which dropout mask applies, at which positions the layer works, and whether its numbers are recorded.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..adapters import KINDS, module_config
from ..ops import (
    attention_backward,
    attention_forward,
    attention_scores,
    consecutive_tables,
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
    present,
    rms_norm_backward,
    rms_norm_forward,
    rope_backward,
    rope_forward,
    rope_tables,
    softmax_forward,
    swiglu_backward,
    swiglu_forward,
)
from .rows import rows_forward


class Operation(NamedTuple):
    """An operation as a layer of a model."""

    forward: Callable  # (call, module, *inputs) -> (output, cache)
    backward: Callable  # (dy, cache) -> tuple of gradients, with the fields dweight, … if there are parameters
    inputs: int = 1  # how many inputs have a gradient; backward's result begins with these gradients
    adds_up: bool = False  # whether backward also takes the weight's gradient so far, and adds to it in place
    inside: Callable | None = None  # (call, module, *inputs) -> the operation's intermediate steps, to be recorded
    steps: tuple = ()  # names of these steps, in backward's order


def forward_layers(cache, record=None):
    """Make the `run` of one forward pass.

    Parameters
    ----------
    cache : ForwardCache, whose `ops` and `shapes` are filled
    record : dict that `run` fills, name -> activation; or None
    """
    call, ops, shapes, _ = cache

    def run(name, *inputs):
        module = call.modules[name]
        operation = OPERATIONS[module.operation]
        if module.one_position:
            shapes[name] = [x.shape for x in inputs]
            if module.operation != "attention":  # which reads all keys and values
                inputs = [at_read(x, call.read) for x in inputs]
        y, ops[name] = operation.forward(call, module, *inputs)
        if record is not None:
            if operation.inside is not None:
                record.update(operation.inside(call, module, *inputs))
            record[output_name(name)] = y
        return y

    return run


def backward_layers(cache, grads, record=None):
    """Make the `back` of one backward pass.

    Parameters
    ----------
    cache : ForwardCache
    grads : dict that `back` fills, name of a wanted parameter -> gradient
    record : dict that `back` fills, name of an activation -> gradient; or None
    """
    call, ops, shapes, _ = cache

    def back(name, dy):
        module = call.modules[name]
        operation = OPERATIONS[module.operation]
        if dy is None:  # no layer from here on is trained
            return None if operation.inputs == 1 else (None,) * operation.inputs
        if name in call.adapter_arrays:
            dx, of_parameters = KINDS[call.adapter_config.kind].backward(dy, ops[name])
            result = (dx,)
        else:
            earlier = (grads.get(f"{module.parameters}.weight"),) if operation.adds_up else ()
            result = operation.backward(dy, ops[name], *earlier)
            of_parameters = {leaf: getattr(result, "d" + leaf) for leaf in call.wanted[name] if leaf != "x"}
        for leaf, grad in of_parameters.items():
            grads[f"{module.parameters}.{leaf}"] = grad
        if record is not None:
            steps = {f"{module.prefix}{step}": getattr(result, "d" + step) for step in operation.steps}
            record.update(present({output_name(name): dy, **steps}))
        dinputs = result[: operation.inputs]
        if module.one_position:
            dinputs = [spread(dx, shape, call.read) for dx, shape in zip(dinputs, shapes[name])]
        return dinputs[0] if operation.inputs == 1 else dinputs

    return back


def output_name(name):
    """The name of a layer's output: the layer's own name, except that the head's output is called "logits"."""
    return "logits" if name == "head" else name


def at_read(x, read):
    """The one position in each row that a classifier reads, (B, 1, C); x itself if it has only that position."""
    return x[np.arange(len(x)), read][:, None] if x.ndim == 3 and x.shape[1] > 1 else x


def spread(dx, shape, read):
    """The gradient of `at_read`'s input: zero at all other positions."""
    if dx is None or dx.shape == shape:
        return dx
    full = np.zeros_like(dx, shape=shape)  # (B, T, C)
    full[np.arange(len(full)), read] = dx[:, 0]
    return full


# ---------------------------------------------------------------- each operation as a layer


def embedding(call, module, ids):
    return embedding_forward(ids, call.params[f"{module.name}.weight"], call.wanted[module.name])


def layer_norm(call, module, x):
    weight, bias = call.params[f"{module.name}.weight"], call.params[f"{module.name}.bias"]
    return layer_norm_forward(x, weight, bias, call.config.layer_norm_eps, call.wanted[module.name])


def rms_norm(call, module, x):
    weight = call.params[f"{module.name}.weight"]
    return rms_norm_forward(x, weight, call.config.rms_norm_eps, call.wanted[module.name])


def linear(call, module, x):
    if call.groups:
        return rows_forward(x, module.parameters, call), None
    weight, bias = call.params[f"{module.parameters}.weight"], call.params.get(f"{module.parameters}.bias")
    wanted = call.wanted[module.name]
    if module.name not in call.adapter_arrays:
        return linear_forward(x, weight, bias, wanted)
    config = module_config(call.adapter_config, module.name)
    arrays, mask = call.adapter_arrays[module.name], call.masks.get(f"{module.name}.adapter")
    return KINDS[config.kind].forward(x, weight, bias, arrays, config, wanted, mask)


def rope(call, module, x):
    settings = call.config.head_size, call.config.rope_theta, x.dtype
    if module.one_position:
        return rope_forward(x, *rope_tables(call.read[:, None], *settings))  # x is (B, 1, H·D)
    return rope_forward(x, *consecutive_tables(0, x.shape[1], *settings))


def attention(call, module, q, k, v):
    wanted = [name for name in "qkv" if call.wanted[f"{module.prefix}{name}_proj"]]
    return attention_forward(q, k, v, call.config.n_heads, wanted, query_positions(call, module))


def attention_inside(call, module, q, k, v):
    scores = attention_scores(q, k, call.config.n_heads, query_positions(call, module))  # (B, H, Tq, T)
    return {f"{module.prefix}scores": scores, f"{module.prefix}probs": softmax_forward(scores)[0]}


def query_positions(call, module):
    """(B, 1), the position of a classifier's only query among the keys; None if the queries are at the last keys."""
    return call.read[:, None] if module.one_position else None


def gelu(call, module, x):
    return gelu_forward(x, call.wanted[module.name])


def swiglu(call, module, gate, up):
    wanted = [name for name in ("gate", "up") if call.wanted[f"{module.prefix}{name}_proj"]]
    return swiglu_forward(gate, up, wanted)


def embed(call, module, tok, pos):
    return dropout_forward(tok + pos, call.masks.get(module.mask_name))


def embed_backward(dy, cache):
    dtok = dropout_backward(dy, cache).dx  # (B, T, C)
    return dtok, dtok.sum(axis=0)  # (T, C), because all rows of the batch use the same positions


def residual(call, module, x, branch):
    branch, cache = dropout_forward(branch, call.masks.get(module.mask_name))
    return x + branch, cache


def residual_backward(dy, cache):
    return dy, dropout_backward(dy, cache).dx  # of x and of the branch, both (B, T, C)


def pool(call, module, x):
    return x[:, 0], None  # (B, 1, C) -> (B, C)


def pool_backward(dy, cache):
    return (dy[:, None],)  # (B, C) -> (B, 1, C)


OPERATIONS = {
    "embedding": Operation(embedding, embedding_backward, inputs=0, adds_up=True),
    "embed": Operation(embed, embed_backward, inputs=2),
    "layer_norm": Operation(layer_norm, layer_norm_backward),
    "rms_norm": Operation(rms_norm, rms_norm_backward),
    "linear": Operation(linear, linear_backward),
    "rope": Operation(rope, rope_backward),
    "attention": Operation(attention, attention_backward, inputs=3, inside=attention_inside, steps=("probs", "scores")),
    "gelu": Operation(gelu, gelu_backward),
    "swiglu": Operation(swiglu, swiglu_backward, inputs=2),
    "residual": Operation(residual, residual_backward, inputs=2),
    "pool": Operation(pool, pool_backward),
}
