"""A forward pass for one token after another, with the keys and values of all earlier tokens kept.

Under a causal mask a token's keys and values depend on earlier tokens alone, so they never change once
they are computed. Each new token then costs one row through the model, and not the whole text again: every
weight is read from memory once for a single product with it, and little else takes time. Hence a forward
pass of its own, the same as `forward` and shorter: nothing is kept for a backward pass, an adapter is merged,
and q, k and v come from one product.
"""

from typing import NamedTuple

import numpy as np

from ..adapters import merge
from ..ops import embedding_forward
from ..ops.attention import attend
from ..ops.gelu import gelu
from ..ops.layer_norm import layer_norm
from .call import check_ids
from .config import ModelConfig


class DecoderBlock(NamedTuple):
    """One block's layers, each as (weight, bias)."""

    ln1: tuple[np.ndarray, np.ndarray]  # (C,), (C,)
    qkv_proj: tuple[np.ndarray, np.ndarray]  # (3C, C), (3C,): q_proj above k_proj above v_proj
    o_proj: tuple[np.ndarray, np.ndarray]  # (C, C), (C,)
    ln2: tuple[np.ndarray, np.ndarray]
    up_proj: tuple[np.ndarray, np.ndarray]  # (F, C), (F,)
    down_proj: tuple[np.ndarray, np.ndarray]  # (C, F), (C,)


class Decoder(NamedTuple):
    """A language model made ready to read one token after another."""

    params: dict[str, np.ndarray]  # with the adapter merged; what it does not touch is the base's, not a copy
    blocks: list[DecoderBlock]
    config: ModelConfig


class Past(NamedTuple):
    """Keys and values of the tokens so far, with room for all that will come.

    To go on from one text in several ways, copy both arrays for each.
    """

    keys: np.ndarray  # (n_layers, B, n_positions, C)
    values: np.ndarray  # (n_layers, B, n_positions, C)
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
    Decoder; of the weights, q_proj, k_proj, v_proj, those that the adapter touches and those that were quantised are
    copies. All are dense: each token reads every weight, and to dequantise one takes ten times as long as its product

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

    def layer(i, *names):
        parts = [[params[f"blocks.{i}.{name}.{leaf}"] for name in names] for leaf in ("weight", "bias")]
        return tuple(np.concatenate(arrays) if len(arrays) > 1 else arrays[0] for arrays in parts)

    blocks = [
        DecoderBlock(
            ln1=layer(i, "ln1"),
            qkv_proj=layer(i, "attn.q_proj", "attn.k_proj", "attn.v_proj"),
            o_proj=layer(i, "attn.o_proj"),
            ln2=layer(i, "ln2"),
            up_proj=layer(i, "mlp.up_proj"),
            down_proj=layer(i, "mlp.down_proj"),
        )
        for i in range(config.n_layers)
    ]
    return Decoder(params, blocks, config)


def empty_past(decoder, batch_size):
    """The past before the first token."""
    config, dtype = decoder.config, decoder.params["tok_emb.weight"].dtype
    shape = (config.n_layers, batch_size, config.n_positions, config.d_model)
    return Past(np.empty(shape, dtype), np.empty(shape, dtype), 0)


def linear(x, weight, bias):
    """x Wᵀ + b, for a handful of rows. (W xᵀ)ᵀ is the same, and BLAS takes half the time for it."""
    return np.add((weight @ x.T).T, bias, order="C")  # (N, out)


def next_logits(decoder, ids, past):
    """Read more tokens and say what may come after the last of them.

    Parameters
    ----------
    decoder : Decoder
    ids : int array (B, T), the tokens after those in `past`; of equal length in every row
    past : Past; its arrays are written into, so it is used up: go on from the one that is returned

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
    params, config = decoder.params, decoder.config
    check_ids(ids, config)
    if len(ids) != past.keys.shape[1]:
        raise ValueError(f"ids: got {len(ids)} rows, expected {past.keys.shape[1]} as in the past")
    if past.length + ids.shape[1] > config.n_positions:
        raise ValueError(
            f"ids: {past.length} tokens and {ids.shape[1]} more are more than n_positions = {config.n_positions}"
        )
    B, T = ids.shape
    C, eps, start, end = config.d_model, config.layer_norm_eps, past.length, past.length + T
    tok, _ = embedding_forward(ids, params["tok_emb.weight"], ())  # (B, T, C)
    x = (tok + params["pos_emb.weight"][start:end]).reshape(B * T, C)
    for block, keys, values in zip(decoder.blocks, past.keys, past.values, strict=True):
        h = layer_norm(x, *block.ln1, eps)  # (BT, C)
        qkv = linear(h, *block.qkv_proj).reshape(B, T, 3 * C)
        q, keys[:, start:end], values[:, start:end] = qkv[..., :C], qkv[..., C : 2 * C], qkv[..., 2 * C :]
        context, _ = attend(q, keys[:, :end], values[:, :end], config.n_heads)  # (B, T, C)
        x = x + linear(context.reshape(B * T, C), *block.o_proj)  # (BT, C)
        h = layer_norm(x, *block.ln2, eps)  # (BT, C)
        act = gelu(linear(h, *block.up_proj))  # (BT, F)
        x = x + linear(act, *block.down_proj)  # (BT, C)
    last = x.reshape(B, T, C)[:, -1]  # (B, C)
    h = layer_norm(last, params["ln_f.weight"], params["ln_f.bias"], eps)
    return (params["tok_emb.weight"] @ h.T).T, past._replace(length=end)
