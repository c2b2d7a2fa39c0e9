"""A forward pass for one token at a time, with a cache of the keys and values of all earlier tokens.

With a causal mask, a token's keys and values depend only on that token and earlier ones, so they never change. Each new
token therefore costs a forward pass over one token, not over the entire text.

Decoding follows the same path through the model as training, but uses each operation's `decode` in `operations.py`,
which caches nothing for a backward pass. The adapter is merged into the weights, because for a single token, an
adapter's additional products would noticeably slow down decoding.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from ..adapters import merge
from .architectures import architecture, check_writes, modules
from .call import check_ids
from .operations import OPERATIONS
from .passes import hidden_states


class Decoder(NamedTuple):
    """A language model, prepared to read one token at a time."""

    config: object  # the model's configuration
    dtype: np.dtype  # of the weights
    layers: dict[str, Callable]  # name -> function of a Reading and the layer's inputs


class Reading(NamedTuple):
    """The values that all layers share while new tokens are read. Activations between layers have shape (BT, C)."""

    config: object  # the model's configuration
    shape: tuple[int, int]  # (B, T) of the new tokens
    start: int  # the position of the first new token
    blocks: Iterator  # each block's keys and values, both (B, all tokens, K·D), with room for the new ones at the end


class KVCache(NamedTuple):
    """Keys and values of the tokens read so far. `next_logits` writes into the arrays and enlarges them when needed.

    To continue the same text in several ways, copy both arrays for each continuation.
    """

    keys: np.ndarray  # (n_layers, B, room, K·D); GPT-2's K·D is C
    values: np.ndarray  # (n_layers, B, room, K·D)
    length: int  # number of tokens in them


def make_decoder(params, config, adapter=None):
    """Prepare a model for `next_logits`.

    Parameters
    ----------
    params : dict of a language model's weights; they are not changed
    config : the model's configuration
    adapter : Adapter or None

    Returns
    -------
    Decoder. Adapted and quantised weights are dense copies, because each token uses every weight, and dequantising a
    weight takes ten times as long as the product with it.

    Raises
    ------
    ValueError
        For a classifier, an encoder, or an adapter for a layer that the model lacks.
    """
    check_writes(config)
    if adapter is not None:
        params = merge(params, adapter)
    params = {name: np.asarray(weight) for name, weight in params.items()}
    layers = {}
    for name, layer in modules(config).items():
        weight, bias = (params.get(f"{layer.parameters}.{leaf}") for leaf in ("weight", "bias"))
        layers[name] = partial(OPERATIONS[layer.operation].decode, weight, bias)
    return Decoder(config, params["tok_emb.weight"].dtype, layers)


def empty_cache(decoder, batch_size):
    """An empty cache, for a decoder that has not read any tokens yet."""
    config, dtype = decoder.config, decoder.dtype
    width = modules(config)["blocks.0.attn.k_proj"].shape[0]
    shape = (config.n_layers, batch_size, 0, width)
    return KVCache(np.empty(shape, dtype), np.empty(shape, dtype), 0)


def with_room(cache, length, n_positions):
    """Make room for `length` tokens. If the cache must grow, its capacity at least doubles, up to n_positions."""
    room = cache.keys.shape[2]
    if length <= room:
        return cache
    n_layers, B, _, C = cache.keys.shape
    more = np.empty((n_layers, B, min(max(length, 2 * room), n_positions) - room, C), cache.keys.dtype)
    return KVCache(*(np.concatenate([array, more], axis=2) for array in (cache.keys, cache.values)), cache.length)


def next_logits(decoder, ids, cache):
    """Read more tokens and compute the logits of the next token.

    Parameters
    ----------
    decoder : Decoder
    ids : int array (B, T), the tokens that follow those in `cache`
    cache : KVCache; its arrays may be overwritten, so continue with the returned one

    Returns
    -------
    logits : array (B, V)
    cache : KVCache, which includes the new tokens

    Raises
    ------
    TypeError, ValueError
        If ids is not a (B, T) array of integers, has ids outside the vocabulary, has a different number of rows from
        the cache, or has more tokens than there are positions left.
    """
    config, layers = decoder.config, decoder.layers
    check_ids(ids, config)
    B, T = ids.shape
    if B != cache.keys.shape[1]:
        raise ValueError(f"ids: got {B} rows, expected {cache.keys.shape[1]}, as in the cache")
    start, end = cache.length, cache.length + T
    if end > config.n_positions:
        raise ValueError(f"ids: {start} tokens plus {T} new ones exceed n_positions = {config.n_positions}")
    cache = with_room(cache, end, config.n_positions)
    blocks = iter(zip(cache.keys[:, :, :end], cache.values[:, :, :end]))
    reading = Reading(config, (B, T), start, blocks)

    def run(name, *inputs):
        return layers[name](reading, *inputs)

    x = hidden_states(ids, config, run, start).reshape(B, T, -1)[:, -1]  # (B, C): only the last token's logits matter
    logits = run("head", architecture(config).output_forward(x, config, run))  # (B, V)
    return logits, cache._replace(length=end)
