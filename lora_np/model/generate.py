"""Generate text: read the prompt, choose a token, read that token, and so on."""

import numpy as np

from ..adapters import Adapter
from ..checked import whole_number
from .call import check_ids
from .decoder import empty_cache, make_decoder, next_logits
from .rows import rows_by_adapter
from .sampling import GREEDY, Sampling, choose


def generate(params, ids, config, n_new, adapter=None, **settings):
    """Continue each row with new tokens. The arguments are those of `generate_tokens`.

    Returns
    -------
    int64 array (B, T + n) with n ≤ n_new. A row that ended before the others is padded with the stop token that
    ended it.
    """
    new = generate_tokens(params, ids, config, n_new, adapter, **settings)  # checks ids
    return np.concatenate([ids.astype(np.int64), np.stack(list(new), axis=1)], axis=1)


def generate_tokens(
    params, ids, config, n_new, adapter=None, *, sampling=GREEDY, rng=None, stop=(), never=(), slide=False
):
    """Continue each row, and yield each new token as soon as it is chosen.

    Parameters
    ----------
    params : dict of a language model's weights
    ids : int array (B, T), the prompts, of equal length and without padding
    config : the model's configuration
    n_new : int, the maximum number of new tokens in each row
    adapter : Adapter or None; or a list with an Adapter or None for each row
    sampling : Sampling; by default the most probable token is chosen
    rng : np.random.Generator, needed unless sampling.temperature is 0; each step draws B random numbers from it
    stop : ids of tokens that end a row; generation stops when every row has ended
    never : ids of tokens that are never chosen, such as ids that the tokenizer lacks
    slide : bool, whether a text may be longer than n_positions. With slide, the model reads only the last
        n_positions tokens of a prompt. Whenever all positions are used, it reads the last n_positions // 2 tokens
        again, as if the text began there.

    Returns
    -------
    iterator of int64 arrays (B,), the next token of each row; a row that has ended repeats its stop token

    Raises
    ------
    TypeError, ValueError
        Raised immediately for a classifier, an empty prompt, an n_new below 1, more tokens than the model has positions
        (unless slide), ids in `stop` or `never` outside the vocabulary, or a missing rng. Raised at the first token for
        prompt ids outside the vocabulary.
    FloatingPointError
        If logits are not finite.
    """
    prompt = ids[:, -config.n_positions :] if slide and getattr(ids, "ndim", None) == 2 else ids
    check_ids(prompt, config)
    whole_number("n_new", n_new)
    T = ids.shape[1]
    if not slide and T + n_new > config.n_positions:
        raise ValueError(f"n_new: {T} tokens plus {n_new} new ones exceed n_positions = {config.n_positions}")
    if sampling.temperature > 0 and not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: got {rng!r}, expected an np.random.Generator, because temperature is above 0")
    stop, never = known_ids("stop", stop, config), known_ids("never", never, config)
    # One decoder per adapter, with the adapter merged, takes memory for the adapted weights, but no extra time per
    # token.
    if adapter is None or isinstance(adapter, Adapter):
        readers = [(slice(None), make_decoder(params, config, adapter))]
    else:
        by_adapter = rows_by_adapter(adapter, len(ids))
        readers = [(rows, make_decoder(params, config, its_adapter)) for rows, its_adapter in by_adapter]
    text = prompt.astype(np.int64)  # a narrow dtype may be too small for the new tokens' ids
    return continued(readers, text, config, n_new, sampling, rng, stop, never)


def sample(params, prompts, config, n_new, rng, adapter=None, stop=()):
    """Continue prompts of any lengths with tokens drawn from the model's own probabilities.

    The probabilities are not modified by a temperature, top-k or top-p: policy gradients hold for the distribution
    from which the tokens were drawn.

    Parameters
    ----------
    prompts : list of arrays of token ids, none of them empty
    n_new : int, the maximum number of new tokens; a text also ends at the model's last position
    params, config, rng, adapter, stop : see `generate_tokens`

    Returns
    -------
    list of arrays of new token ids, each up to and including the first token in `stop`
    """
    lengths, completions = np.array([len(prompt) for prompt in prompts]), [None] * len(prompts)
    for T in np.unique(lengths):
        rows = np.flatnonzero(lengths == T)
        ids, n = np.stack([prompts[row] for row in rows]), min(n_new, config.n_positions - int(T))
        texts = generate(params, ids, config, n, adapter, sampling=Sampling(), rng=rng, stop=stop)[:, T:]
        ends = np.isin(texts, np.array([*stop]))
        for row, text, end in zip(rows, texts, ends):
            completions[row] = text[: end.argmax() + 1] if end.any() else text
    return completions


def known_ids(name, ids, config):
    """Convert token ids to an array (n,); raise ValueError if an id is outside the vocabulary."""
    ids = np.array(ids if np.iterable(ids) else [ids])
    if ids.size and not (np.issubdtype(ids.dtype, np.integer) and 0 <= ids.min() <= ids.max() < config.vocab_size):
        raise ValueError(f"{name}: got {ids.tolist()}, expected ids from 0 to {config.vocab_size - 1}")
    return ids.astype(np.int64)


def continued(readers, text, config, n_new, sampling, rng, stop, never):
    """Generate tokens one by one, with arguments that `generate_tokens` has already checked.

    `readers` has a pair (rows, Decoder) for each distinct adapter; text (B, T), stop (n,) and never (n,) are int64.
    """
    unread = text  # (B, ...), the tokens that are not in the caches yet
    ended = np.zeros(len(text), dtype=bool)  # (B,)
    caches = [empty_cache(decoder, len(text[rows])) for rows, decoder in readers]
    logits = np.empty((len(text), config.vocab_size), dtype=caches[0].keys.dtype)
    for _ in range(n_new):
        if caches[0].length + unread.shape[1] > config.n_positions:
            unread = text[:, -max(1, config.n_positions // 2) :]
            caches = [cache._replace(length=0) for cache in caches]
        for i, (rows, decoder) in enumerate(readers):
            logits[rows], caches[i] = next_logits(decoder, unread[rows], caches[i])
        if not np.isfinite(logits).all():
            raise FloatingPointError(
                "the logits of the next token are not finite; the weights are corrupted or far too large"
            )
        if never.size:
            logits[:, never] = -np.inf
        new = choose(logits, text, sampling, rng)  # (B,)
        new = np.where(ended, text[:, -1], new) if stop.size else new
        yield new
        if stop.size:
            ended |= (new[:, None] == stop).any(axis=1)
            if ended.all():
                return
        unread = new[:, None]
        text = np.concatenate([text, unread], axis=1)
