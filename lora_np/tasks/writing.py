"""Text from a language model, shown as it is written."""

from dataclasses import replace

import numpy as np

from ..data import END_OF_TEXT, decode, encode
from ..model import GREEDY, generate_tokens

UNFINISHED = "\ufffd"  # how the bytes of half a character are decoded


def write_text_from(task, prompt, n_new, adapter=None, sampling=GREEDY, rng=None, ignore_end=False):
    """The prompt, and then piece by piece what a model makes of it.

    A text longer than the position table goes on with its last half; see `generate_tokens`.

    Parameters
    ----------
    task : Task of a language model
    prompt : str with at least one character that is no white space
    n_new : int, the most tokens to write
    adapter : Adapter or None
    sampling : Sampling
    rng : np.random.Generator, unless sampling.temperature is 0
    ignore_end : bool, write on after ``<|endoftext|>``, which otherwise ends the text

    Returns
    -------
    iterator of str, pieces that make the text when they are put together
    """
    if task.labels is not None:
        raise ValueError("model: holds a classifier, expected a language model; `predict` classifies with it")
    if not prompt.strip():
        raise ValueError("prompt: is empty, expected at least one word")
    ids = encode(task.tokenizer, [prompt])[0][None]  # (1, T)
    params, config = within_vocabulary(task)
    end = task.tokenizer.token_to_id(END_OF_TEXT)
    stop = () if ignore_end else (end,)
    new = generate_tokens(params, ids, config, n_new, adapter, sampling=sampling, rng=rng, stop=stop, slide=True)
    return pieces(task.tokenizer, ids[0].tolist(), new)


def within_vocabulary(task):
    """The model without the rows of its table that no token has: some tables are rounded up to a fuller number.

    The head is the table once more, so that no such row can be drawn.
    """
    n = task.tokenizer.get_vocab_size()
    params = {**task.params, "tok_emb.weight": task.params["tok_emb.weight"][:n]}
    return params, replace(task.config, vocab_size=n)


def pieces(tokenizer, text, new):
    """The text of some ids, and then what each further one adds; half a character waits for its other half."""
    whole = shown = decode(tokenizer, np.array(text))
    yield shown
    for token in new:
        text.append(int(token[0]))
        whole = decode(tokenizer, np.array(text))
        if not whole.endswith(UNFINISHED):
            yield whole[len(shown) :]
            shown = whole
    if whole != shown:
        yield whole[len(shown) :]
