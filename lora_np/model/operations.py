"""The table of operations: how a layer computes each one in the forward pass, the backward pass and decoding.

`layers.py` calls `forward` and `backward` in training and evaluation, and `decoder.py` calls `decode` for one token at
a time.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .. import ops
from ..adapters import KINDS, module_config
from ..ops.attention import attend
from ..ops.rms_norm import RMSNormGrads
from ..ops.rope import rotate
from ..ops.swiglu import sigmoid
from .rows import rows_forward

PIECE = 2048  # rows of a weight to multiply at a time; multiplying the entire head at once takes 1.5 times as long


class Operation(NamedTuple):
    """How a layer computes one operation and its gradients."""

    forward: Callable  # (call, module, *inputs) -> (output, cache)
    backward: Callable  # (dy, cache) -> tuple of gradients, with the fields dweight, … if there are parameters
    decode: Callable | None = None  # (weight, bias, Reading, *inputs) -> output; None if no language model uses it
    inputs: int = 1  # number of inputs with a gradient; backward returns their gradients first
    adds_up: bool = False  # whether backward adds in place to the weight's gradient from other layers
    inside: Callable | None = None  # (call, module, *inputs) -> intermediate steps to record
    steps: tuple = ()  # names of these steps, in the order of the backward pass


# ---------------------------------------------------------------- each operation as a layer


def embedding(call, module, ids):
    return ops.embedding_forward(ids, call.params[f"{module.name}.weight"], call.wanted[module.name])


def layer_norm(call, module, x):
    weight, bias = call.params[f"{module.name}.weight"], call.params[f"{module.name}.bias"]
    return ops.layer_norm_forward(x, weight, bias, call.config.layer_norm_eps, call.wanted[module.name])


def rms_norm(call, module, x):
    weight = call.params[f"{module.name}.weight"]
    return ops.rms_norm_forward(x, weight, call.config.rms_norm_eps, call.wanted[module.name])


def linear(call, module, x):
    if call.groups:
        return rows_forward(x, module.parameters, call), None
    weight, bias = call.params[f"{module.parameters}.weight"], call.params.get(f"{module.parameters}.bias")
    wanted = call.wanted[module.name]
    if module.name not in call.adapter_arrays:
        return ops.linear_forward(x, weight, bias, wanted)
    config = module_config(call.adapter_config, module.name)
    arrays, mask = call.adapter_arrays[module.name], call.masks.get(f"{module.name}.adapter")
    return KINDS[config.kind].forward(x, weight, bias, arrays, config, wanted, mask)


def head_norm(call, module, x):
    heads = x.reshape(*x.shape[:-1], -1, call.config.head_size)  # (B, T, H, D)
    y, cache = rms_norm(call, module, heads)
    return y.reshape(x.shape), cache


def head_norm_backward(dy, cache):
    dx, dweight = ops.rms_norm_backward(dy.reshape(cache.x_hat.shape), cache)
    return RMSNormGrads(None if dx is None else dx.reshape(dy.shape), dweight)


def rope(call, module, x):
    config = call.config
    settings = config.head_size, config.rope_theta, x.dtype, config.rope_divisors
    if module.one_position:
        return ops.rope_forward(x, *ops.rope_tables(call.last[:, None], *settings))  # x is (B, 1, H·D)
    return ops.rope_forward(x, *ops.consecutive_tables(0, x.shape[1], *settings))


def attention(call, module, q, k, v):
    layers = {name: [f"{module.prefix}{name}_{layer}" for layer in ("proj", "norm")] for name in "qkv"}
    wanted = [name for name in "qkv" if any(map(call.wanted.get, layers[name]))]
    return ops.attention_forward(q, k, v, call.config.n_heads, wanted, last_keys(call, module))


def attention_inside(call, module, q, k, v):
    scores = ops.attention_scores(q, k, call.config.n_heads, last_keys(call, module))  # (B, H, Tq, T)
    return {f"{module.prefix}scores": scores, f"{module.prefix}probs": ops.softmax_forward(scores)[0]}


def last_keys(call, module):
    """The last position to which each row's queries attend, (B, 1); None if each query attends up to its own position.

    An encoder's queries attend to all non-padding keys. In a classifier's last block, each row's single query is at its
    last non-padding token.
    """
    return call.last[:, None] if module.one_position or module.operation == "encoder_attention" else None


def gelu(call, module, x):
    return ops.gelu_forward(x, call.wanted[module.name])


def gelu_erf(call, module, x):
    return ops.gelu_erf_forward(x, call.wanted[module.name])


def swiglu(call, module, gate, up):
    wanted = [name for name in ("gate", "up") if call.wanted[f"{module.prefix}{name}_proj"]]
    return ops.swiglu_forward(gate, up, wanted)


def embed(call, module, tok, pos):
    return ops.dropout_forward(tok + pos, call.masks.get(module.mask_name))


def embed_backward(dy, cache):
    dtok = ops.dropout_backward(dy, cache).dx  # (B, T, C)
    return dtok, dtok.sum(axis=0)  # (T, C), because all rows of the batch use the same positions


def dropout(call, module, x):
    return ops.dropout_forward(x, call.masks.get(module.mask_name))


def residual(call, module, x, branch):
    branch, cache = ops.dropout_forward(branch, call.masks.get(module.mask_name))
    return x + branch, cache


def residual_backward(dy, cache):
    return dy, ops.dropout_backward(dy, cache).dx  # of x and of the branch, both (B, T, C)


def pool(call, module, x):
    return x[:, 0], None  # (B, 1, C) -> (B, C)


def pool_backward(dy, cache):
    return (dy[:, None],)  # (B, C) -> (B, 1, C)


def mean_pool(call, module, x):
    return ops.mean_pool_forward(x, call.last + 1, call.wanted[module.name])


def first_token(call, module, x):
    return x[:, 0], x.shape  # (B, T, C) -> (B, C)


def first_token_backward(dy, shape):
    dx = np.zeros_like(dy, shape=shape)
    dx[:, 0] = dy
    return (dx,)


def tanh(call, module, x):
    y = np.tanh(x)
    return y, y


def tanh_backward(dy, y):
    return (dy * (1.0 - y * y),)


# ---------------------------------------------------------------- each operation in decoding: arrays are (BT, C)


def embedding_decode(weight, bias, reading, ids):
    if ids.ndim == 1:
        return weight[ids]  # positions, which `next_logits` has checked
    return ops.embedding_forward(ids.reshape(-1), weight, ())[0]


def embed_decode(weight, bias, reading, tok, pos):
    return (tok.reshape(*reading.shape, -1) + pos).reshape(tok.shape)


def layer_norm_decode(weight, bias, reading, x):
    x_hat, _ = ops.layer_norm.normalise(x, reading.config.layer_norm_eps)
    return x_hat * weight + bias


def rms_norm_decode(weight, bias, reading, x):
    return ops.rms_norm.normalise(x, reading.config.rms_norm_eps)[0] * weight


def head_norm_decode(weight, bias, reading, x):
    return rms_norm_decode(weight, bias, reading, x.reshape(len(x), -1, len(weight))).reshape(x.shape)


def linear_decode(weight, bias, reading, x):
    """x Wᵀ + b for the few rows of a decoding step, computed as (W xᵀ)ᵀ in pieces, which halves the time."""
    pieces = [weight[i : i + PIECE] @ x.T for i in range(0, len(weight), PIECE)]
    y = (np.concatenate(pieces) if len(pieces) > 1 else pieces[0]).T  # (N, out)
    return y if bias is None else np.add(y, bias, order="C")


def rope_decode(weight, bias, reading, x):
    config, (B, T), start = reading.config, reading.shape, reading.start
    settings = config.head_size, config.rope_theta, x.dtype, config.rope_divisors
    tables = ops.consecutive_tables(start, start + T, *settings)
    return rotate(x.reshape(B, T, -1), *tables).reshape(x.shape)


def attention_decode(weight, bias, reading, q, k, v):
    """Compute the attention output of the new tokens, each of which attends to itself and all earlier tokens."""
    q, k, v = (x.reshape(*reading.shape, -1) for x in (q, k, v))  # (B, T, H·D), (B, T, K·D)
    keys, values = next(reading.blocks)
    new = slice(-k.shape[1], None)
    keys[:, new], values[:, new] = k, v
    context = attend(q, keys, values, reading.config.n_heads)[0]  # (B, T, H·D)
    return context.reshape(-1, context.shape[-1])


def gelu_decode(weight, bias, reading, x):
    return ops.gelu.gelu(x)


def swiglu_decode(weight, bias, reading, gate, up):
    return gate * sigmoid(gate) * up


def residual_decode(weight, bias, reading, x, branch):
    return x + branch


OPERATIONS = {
    "embedding": Operation(embedding, ops.embedding_backward, embedding_decode, inputs=0, adds_up=True),
    "embed": Operation(embed, embed_backward, embed_decode, inputs=2),
    "layer_norm": Operation(layer_norm, ops.layer_norm_backward, layer_norm_decode),
    "rms_norm": Operation(rms_norm, ops.rms_norm_backward, rms_norm_decode),
    "head_norm": Operation(head_norm, head_norm_backward, head_norm_decode),
    "linear": Operation(linear, ops.linear_backward, linear_decode),
    "rope": Operation(rope, ops.rope_backward, rope_decode),
    "attention": Operation(
        attention,
        ops.attention_backward,
        attention_decode,
        inputs=3,
        inside=attention_inside,
        steps=("probs", "scores"),
    ),
    "gelu": Operation(gelu, ops.gelu_backward, gelu_decode),
    "gelu_erf": Operation(gelu_erf, ops.gelu_erf_backward),
    "swiglu": Operation(swiglu, ops.swiglu_backward, swiglu_decode, inputs=2),
    "residual": Operation(residual, residual_backward, residual_decode, inputs=2),
    "pool": Operation(pool, pool_backward),
    "mean_pool": Operation(mean_pool, ops.mean_pool_backward),
    "first_token": Operation(first_token, first_token_backward),
    "tanh": Operation(tanh, tanh_backward),
    "dropout": Operation(dropout, ops.dropout_backward),
}
OPERATIONS["encoder_attention"] = OPERATIONS["attention"]._replace(decode=None)  # see `last_keys`
