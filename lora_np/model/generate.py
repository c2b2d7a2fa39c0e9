"""Generating text token by token, with the keys and values of all earlier tokens kept.

Under a causal mask a token's keys and values depend on earlier tokens alone, so they never change once
they are computed. Each new token then costs one row through the model, and not the whole text again.
"""

from typing import NamedTuple

import numpy as np

from .call import begin
from .transformer import block_forward, embed_forward, head_forward, norm_forward


class Past(NamedTuple):
    """Keys and values of the tokens so far, with room for all that will come."""

    arrays: dict[str, np.ndarray]  # "blocks.0.attn.k_proj", "blocks.0.attn.v_proj", … -> (B, n_positions, C)
    length: int  # how many tokens are in them

    def extended(self, name, new):
        """Write the new tokens' rows (B, T, C) behind the earlier ones; return all (B, length + T, C)."""
        end = self.length + new.shape[1]
        self.arrays[name][:, self.length : end] = new
        return self.arrays[name][:, :end]


def empty_past(config, batch_size, dtype=np.float32):
    """The past before the first token."""
    names = [f"blocks.{i}.attn.{name}" for i in range(config.n_layers) for name in ("k_proj", "v_proj")]
    shape = (batch_size, config.n_positions, config.d_model)
    return Past({name: np.empty(shape, dtype) for name in names}, 0)


def next_logits(call, ids, past):
    """Read more tokens and say what may come after the last of them.

    Parameters
    ----------
    call : call.Call, from `begin`
    ids : int array (B, T), the tokens after those in `past`; of equal length in every row
    past : Past; its arrays are written to

    Returns
    -------
    logits : array (B, V)
    past : Past, with the tokens in it
    """
    ops = {}  # nothing is trained, so nothing is kept
    x = embed_forward(ids, call, ops, None, past)  # (B, T, C)
    for i in range(call.config.n_layers):
        x = block_forward(x, i, call, ops, None, past)  # (B, T, C)
    h = norm_forward(x[:, -1:], "ln_f", call, ops, None)  # (B, 1, C): only the last position is asked for
    logits = head_forward(h, call, ops, None)  # (B, 1, V)
    return logits[:, 0], past._replace(length=past.length + ids.shape[1])


def generate(params, ids, config, n_new, adapter=None):
    """Continue each row with its most probable tokens, one after another (greedy decoding).

    Parameters
    ----------
    params : dict of a language model's weights
    ids : int array (B, T), the prompts, of equal length and without padding
    config : ModelConfig
    n_new : int, tokens to add to each row; T + n_new at most config.n_positions
    adapter : Adapter or None

    Returns
    -------
    int array (B, T + n_new)

    Raises
    ------
    ValueError
        For a classifier, an n_new below 1, or more tokens than the model has positions.
    """
    if config.n_classes:
        raise ValueError(f"config: a classifier of {config.n_classes} classes, expected a language model")
    call = begin(params, ids, config, None, adapter, (), None)
    if isinstance(n_new, bool) or not isinstance(n_new, (int, np.integer)) or n_new < 1:
        raise ValueError(f"n_new: got {n_new!r}, expected a whole number of at least 1")
    if ids.shape[1] + n_new > config.n_positions:
        raise ValueError(
            f"n_new: {ids.shape[1]} tokens and {n_new} new ones are more than n_positions = {config.n_positions}"
        )
    past = empty_past(config, len(ids), params["tok_emb.weight"].dtype)
    text, new = ids, ids
    for _ in range(n_new):
        logits, past = next_logits(call, new, past)  # (B, V)
        new = logits.argmax(axis=-1)[:, None].astype(ids.dtype)  # (B, 1)
        text = np.concatenate([text, new], axis=1)
    return text
