"""A forward pass for one token after another, with the keys and values of all earlier tokens kept.

Under a causal mask a token's keys and values depend on earlier tokens alone, so they never change once they are
computed. Each new token then costs one row through the model instead of the whole text again. The way through the
model is `compute_logits`, as in training; its `run` is made here, and is shorter: nothing is kept for a backward pass,
and an adapter is merged, because each token reads every weight once for a single product, so little else may take time.
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
    """A language model made ready to read one token after another."""

    params: dict[str, np.ndarray]  # with the adapter merged; what it does not touch is the base's, not a copy
    layers: dict[str, Callable]  # name -> function of the layer's inputs
    side_by_side: dict[str, list]  # the first of several layers with one input -> all of them
    config: ModelConfig


class Past(NamedTuple):
    """Keys and values of the tokens so far; the arrays grow as they are used.

    To continue one text in several ways, copy both arrays for each.
    """

    keys: np.ndarray  # (n_layers, B, room, C)
    values: np.ndarray  # (n_layers, B, room, C)
    length: int  # how many tokens are in them


def make_decoder(params, config, adapter=None):
    """Gather what `next_logits` reads.

    Parameters
    ----------
    params : dict of a language model's weights; left as they are
    config : ModelConfig
    adapter : Adapter or None

    Returns
    -------
    Decoder; the weights that the adapter touches and those that were quantised are copies. All are dense: each token
    reads every weight, and dequantising one takes ten times as long as its product

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
    return Decoder(params, layers, side_by_side, config)


def layer(stage, params, config):
    """One layer, or several linear ones side by side, as one function of their input."""
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
    """x Wᵀ + b, for a handful of rows. (W xᵀ)ᵀ is the same, and BLAS takes half the time for it."""
    y = (weight @ as_rows(x).T).T  # (N, out)
    y = y if bias is None else np.add(y, bias, order="C")
    return y.reshape(*x.shape[:-1], weight.shape[0])


def empty_past(decoder, batch_size):
    """The past before the first token."""
    config, dtype = decoder.config, decoder.params["tok_emb.weight"].dtype
    shape = (config.n_layers, batch_size, 0, config.d_model)
    return Past(np.empty(shape, dtype), np.empty(shape, dtype), 0)


def with_room(past, length, n_positions):
    """The past with room for `length` tokens; it doubles when it is full, up to the position table's size."""
    room = past.keys.shape[2]
    if length <= room:
        return past
    shape = list(past.keys.shape)
    shape[2] = min(max(length, 2 * room), n_positions)
    keys, values = np.empty(shape, past.keys.dtype), np.empty(shape, past.keys.dtype)
    keys[:, :, :room], values[:, :, :room] = past.keys, past.values
    return Past(keys, values, past.length)


def next_logits(decoder, ids, past):
    """Read more tokens and say what may come after the last of them.

    Parameters
    ----------
    decoder : Decoder
    ids : int array (B, T), the tokens after those in `past`; of equal length in every row
    past : Past; its arrays may be written into, so it is used up: continue with the one that is returned

    Returns
    -------
    logits : array (B, V)
    past : Past, with the tokens in it

    Raises
    ------
    TypeError, ValueError
        For ids that are no (B, T) array of integers, outside the vocabulary, of another number of rows
        than the past's, or more than there are positions left.
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
        elif name == "ln_f":  # what follows the last token is asked for, and nothing else
            inputs = (inputs[0][:, -1],)  # (B, C)
        output = layers[name](*inputs)
        if name in decoder.side_by_side:  # q, k and v come from one product
            names = decoder.side_by_side[name]
            ready.update(zip(names, np.split(output, len(names), axis=-1)))
            return ready.pop(name)
        return output

    return compute_logits(ids, config, run, start), past._replace(length=end)
