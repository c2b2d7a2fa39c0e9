"""A forward pass for one token at a time, which keeps the keys and values of all earlier tokens.

Under a causal mask a token's keys and values depend only on that token and earlier ones, so they never change. Each new
token then costs one row through the model, instead of the whole text again.

The path through the model is `compute_hidden`, as in training, with a shorter `run` that keeps nothing for a backward
pass. The adapter is merged: each token reads every weight for a single product, so further products would take
noticeable time.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ..adapters import merge
from ..ops import consecutive_tables, embedding_forward
from ..ops.attention import attend
from ..ops.gelu import gelu
from ..ops.layer_norm import layer_norm
from ..ops.rms_norm import rms_norm
from ..ops.rope import rotate
from ..ops.swiglu import sigmoid
from .architectures import architecture, modules
from .call import check_ids
from .passes import compute_hidden

PIECE = 2048  # rows of a weight that are multiplied at a time; the whole head at once takes half as long again


class Decoder(NamedTuple):
    """A language model, prepared to read one token at a time."""

    dtype: np.dtype  # of the weights
    layers: dict[str, Callable]  # name -> function of the Reading and the layer's inputs
    config: object  # ModelConfig or LlamaConfig


class Past(NamedTuple):
    """Keys and values of the tokens so far. `next_logits` writes into the arrays and enlarges them when needed.

    To continue one text in several ways, copy both arrays for each of them.
    """

    keys: np.ndarray  # (n_layers, B, room, K·D); GPT-2's K·D is C
    values: np.ndarray  # (n_layers, B, room, K·D)
    length: int  # number of tokens in them


def make_decoder(params, config, adapter=None):
    """Prepare a model for `next_logits`.

    Parameters
    ----------
    params : dict of a language model's weights; they are not changed
    config : ModelConfig or LlamaConfig
    adapter : Adapter or None

    Returns
    -------
    Decoder. Adapted and quantised weights are dense copies, because each token reads every weight, and dequantising a
    weight takes ten times as long as the product with it.

    Raises
    ------
    ValueError
        For a classifier, or an adapter of a layer that the model lacks.
    """
    if config.n_classes:
        raise ValueError(f"config: a classifier of {config.n_classes} classes, expected a language model")
    if adapter is not None:
        params = merge(params, adapter)
    params = {name: np.asarray(weight) for name, weight in params.items()}
    layers = {module.name: layer(module, params, config) for module in modules(config).values()}
    return Decoder(params["tok_emb.weight"].dtype, layers, config)


class Reading(NamedTuple):
    """What the layers share while they read tokens. Between the layers, arrays are (BT, C)."""

    shape: tuple[int, int]  # (B, T) of the new tokens
    start: int  # the position of the first
    blocks: Iterator  # each block's keys and values, both (B, all tokens, K·D), with room for the new ones at the end


def layer(module, params, config):
    """The function of one of the model's layers."""
    weight, bias = (params.get(f"{module.parameters}.{leaf}") for leaf in ("weight", "bias"))
    function = {
        "embedding": lambda reading, ids: embedding_forward(ids.reshape(-1), weight, ())[0],
        "embed": lambda reading, tok, pos: (tok.reshape(*reading.shape, -1) + pos).reshape(tok.shape),
        "layer_norm": lambda reading, x: layer_norm(x, weight, bias, config.layer_norm_eps),
        "rms_norm": lambda reading, x: rms_norm(x, weight, config.rms_norm_eps),
        "linear": lambda reading, x: linear(x, weight, bias),
        "rope": lambda reading, x: rope(reading, x, config),
        "attention": lambda reading, q, k, v: attention(reading, q, k, v, config.n_heads),
        "gelu": lambda reading, x: gelu(x),
        "swiglu": lambda reading, gate, up: gate * sigmoid(gate) * up,
        "residual": lambda reading, x, branch: x + branch,
    }[module.operation]
    if module.name == "pos_emb":  # positions, unlike ids, are always inside the table
        return lambda reading, positions: weight[positions]
    if module.name == architecture(config).FINAL_NORM:  # only the last token's logits are needed
        return lambda reading, x: function(reading, x.reshape(*reading.shape, -1)[:, -1])  # (B, C)
    return function


def linear(x, weight, bias):
    """x Wᵀ + b for a few rows. It is computed as (W xᵀ)ᵀ, which takes BLAS half the time."""
    pieces = [weight[i : i + PIECE] @ x.T for i in range(0, len(weight), PIECE)]
    y = (np.concatenate(pieces) if len(pieces) > 1 else pieces[0]).T  # (N, out)
    return y if bias is None else np.add(y, bias, order="C")


def rope(reading, x, config):
    """The queries or keys of the new tokens, rotated by their positions."""
    T = reading.shape[1]
    tables = consecutive_tables(reading.start, reading.start + T, config.head_size, config.rope_theta, x.dtype)
    return rotate(x.reshape(*reading.shape, -1), *tables).reshape(x.shape)


def attention(reading, q, k, v, n_heads):
    """The context of the new tokens, which see each other and all earlier ones."""
    q, k, v = (array.reshape(*reading.shape, -1) for array in (q, k, v))  # (B, T, H·D), (B, T, K·D)
    keys, values = next(reading.blocks)
    new = slice(-k.shape[1], None)
    keys[:, new], values[:, new] = k, v
    context, _ = attend(q, keys, values, n_heads)
    return context.reshape(-1, context.shape[-1])


def empty_past(decoder, batch_size):
    """The past before the first token."""
    config, dtype = decoder.config, decoder.dtype
    width = modules(config)["blocks.0.attn.k_proj"].shape[0]
    shape = (config.n_layers, batch_size, 0, width)
    return Past(np.empty(shape, dtype), np.empty(shape, dtype), 0)


def with_room(past, length, n_positions):
    """The past with room for `length` tokens. A full past doubles, up to n_positions."""
    room = past.keys.shape[2]
    if length <= room:
        return past
    n_layers, B, _, C = past.keys.shape
    more = np.empty((n_layers, B, min(max(length, 2 * room), n_positions) - room, C), past.keys.dtype)
    return Past(*(np.concatenate([array, more], axis=2) for array in (past.keys, past.values)), past.length)


def next_logits(decoder, ids, past):
    """Read more tokens and compute the logits of the one after them.

    Parameters
    ----------
    decoder : Decoder
    ids : int array (B, T), the tokens after those in `past`, equally many in every row
    past : Past; its arrays may be overwritten, so continue with the returned one

    Returns
    -------
    logits : array (B, V)
    past : Past, which includes the new tokens

    Raises
    ------
    TypeError, ValueError
        If ids is not a (B, T) array of integers, has ids outside the vocabulary, has another number of rows than the
        past, or has more tokens than there are positions left.
    """
    config, layers = decoder.config, decoder.layers
    check_ids(ids, config)
    B, T = ids.shape
    if B != past.keys.shape[1]:
        raise ValueError(f"ids: got {B} rows, expected {past.keys.shape[1]} as in the past")
    start, end = past.length, past.length + T
    if end > config.n_positions:
        raise ValueError(f"ids: {start} tokens and {T} more are more than n_positions = {config.n_positions}")
    past = with_room(past, end, config.n_positions)
    reading = Reading((B, T), start, iter(zip(past.keys[:, :, :end], past.values[:, :, :end])))
    h = compute_hidden(ids, config, lambda name, *inputs: layers[name](reading, *inputs), start)  # (B, C)
    logits = layers["head"](reading, h)
    return logits, past._replace(length=end)
