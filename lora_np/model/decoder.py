"""A forward pass for one token at a time, which keeps the keys and values of all earlier tokens.

Under a causal mask a token's keys and values depend only on that token and earlier ones, so they never change. Each new
token then costs one row through the model, instead of the whole text again.

The path through the model is `compute_logits`, as in training, with a shorter `run` that keeps nothing for a backward
pass. The adapter is merged: each token reads every weight for a single product, so further products would take
noticeable time.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..adapters import merge
from ..ops import embedding_forward
from ..ops.attention import attend
from ..ops.gelu import gelu
from ..ops.layer_norm import layer_norm
from ..ops.linear import as_rows
from .call import check_ids
from .gpt2 import ModelConfig, modules
from .passes import compute_logits


class Decoder(NamedTuple):
    """A language model, prepared to read one token at a time."""

    dtype: np.dtype  # of the weights
    layers: dict[str, Callable]  # name -> function of the layer's inputs
    side_by_side: dict[str, list]  # first of several linear layers with the same input -> names of all of them
    config: ModelConfig


class Past(NamedTuple):
    """Keys and values of the tokens so far. `next_logits` writes into the arrays and enlarges them when needed.

    To continue one text in several ways, copy both arrays for each of them.
    """

    keys: np.ndarray  # (n_layers, B, room, C)
    values: np.ndarray  # (n_layers, B, room, C)
    length: int  # number of tokens in them


def make_decoder(params, config, adapter=None):
    """Prepare a model for `next_logits`.

    Parameters
    ----------
    params : dict of a language model's weights; they are not changed
    config : ModelConfig
    adapter : Adapter or None

    Returns
    -------
    Decoder. Adapted weights, quantised weights and the joined weights of q, k and v are copies. All are dense, because
    each token reads every weight, and dequantising a weight takes ten times as long as the product with it.

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
    stages = {}
    for module in modules(config).values():
        stages.setdefault(module.depth if module.operation == "linear" else module.name, []).append(module)
    layers = {stage[0].name: layer(stage, params, config) for stage in stages.values()}
    side_by_side = {stage[0].name: [module.name for module in stage] for stage in stages.values() if len(stage) > 1}
    return Decoder(params["tok_emb.weight"].dtype, layers, side_by_side, config)


def layer(stage, params, config):
    """One layer, or several linear layers with the same input, as one function."""
    module = stage[0]
    if len(stage) > 1:
        weight, bias = (np.concatenate([params[f"{m.name}.{leaf}"] for m in stage]) for leaf in ("weight", "bias"))
    else:
        weight, bias = (params.get(f"{module.parameters}.{leaf}") for leaf in ("weight", "bias"))
    return {
        "embedding": lambda ids: embedding_forward(ids, weight, ())[0],
        "embed": np.add,
        "layer_norm": lambda x: layer_norm(as_rows(x), weight, bias, config.layer_norm_eps).reshape(x.shape),
        "linear": lambda x: linear(x, weight, bias),
        "attention": lambda q, k, v: attend(q, k, v, config.n_heads)[0],
        "gelu": gelu,
        "residual": np.add,
    }[module.operation]


def linear(x, weight, bias):
    """x Wᵀ + b for a few rows, computed as (W xᵀ)ᵀ + b, which takes BLAS half the time."""
    y = (weight @ as_rows(x).T).T  # (N, out)
    y = y if bias is None else np.add(y, bias, order="C")
    return y.reshape(*x.shape[:-1], weight.shape[0])


def empty_past(decoder, batch_size):
    """The past before the first token."""
    config, dtype = decoder.config, decoder.dtype
    shape = (config.n_layers, batch_size, 0, config.d_model)
    return Past(np.empty(shape, dtype), np.empty(shape, dtype), 0)


def with_room(past, length, n_positions):
    """The past with room for `length` tokens. A full past doubles, up to the size of the position table."""
    room = past.keys.shape[2]
    if length <= room:
        return past
    shape = list(past.keys.shape)
    shape[2] = min(max(length, 2 * room), n_positions)
    keys, values = np.empty(shape, past.keys.dtype), np.empty(shape, past.keys.dtype)
    keys[:, :, :room], values[:, :, :room] = past.keys, past.values
    return Past(keys, values, past.length)


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
    if len(ids) != past.keys.shape[1]:
        raise ValueError(f"ids: got {len(ids)} rows, expected {past.keys.shape[1]} as in the past")
    start, end = past.length, past.length + ids.shape[1]
    if end > config.n_positions:
        raise ValueError(
            f"ids: {start} tokens and {ids.shape[1]} more are more than n_positions = {config.n_positions}"
        )
    past = with_room(past, end, config.n_positions)
    blocks, ready = iter(zip(past.keys, past.values)), {}

    def run(name, *inputs):
        if name in ready:
            return ready.pop(name)
        if name.endswith("attn.context"):
            q, k, v = inputs  # (B, T, C)
            keys, values = next(blocks)  # (B, room, C), of this block
            keys[:, start:end], values[:, start:end] = k, v
            inputs = q, keys[:, :end], values[:, :end]
        elif name == "ln_f":  # only the last token's logits are needed
            inputs = (inputs[0][:, -1],)  # (B, C)
        output = layers[name](*inputs)
        if name in decoder.side_by_side:  # q, k and v come from one product
            names = decoder.side_by_side[name]
            ready.update(zip(names, np.split(output, len(names), axis=-1)))
            return ready.pop(name)
        return output

    return compute_logits(ids, config, run, start), past._replace(length=end)
