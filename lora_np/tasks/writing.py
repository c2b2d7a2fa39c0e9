"""Generate text piece by piece."""

from dataclasses import replace

import numpy as np

from ..data import END_OF_TEXT, decode, encode
from ..model import GREEDY, generate_tokens

UNFINISHED = "\ufffd"  # what incomplete bytes of a character decode to


def write_text_from(task, prompt, n_new, adapter=None, sampling=GREEDY, rng=None, ignore_end=False):
    """Yield the prompt, and then its continuation piece by piece.

    When the text reaches the end of the position table, generation continues from its last half; see
    `generate_tokens`.

    Parameters
    ----------
    task : Task of a language model
    prompt : str with at least one character that is not white space
    n_new : int, the maximum number of tokens to generate
    adapter : Adapter or None
    sampling : Sampling
    rng : np.random.Generator, unless sampling.temperature is 0
    ignore_end : bool, continue after ``<|endoftext|>``, which otherwise ends the text

    Returns
    -------
    iterator of str; joined, they are the text
    """
    if task.labels is not None:
        raise ValueError("model: got a classifier, expected a language model; use `predict` to classify with it")
    if not prompt.strip():
        raise ValueError("prompt: is empty, expected at least one word")
    tokenizer = task.tokenizer
    ids = encode(tokenizer, [prompt])[0][None]  # (1, T)
    # Some models round their vocabulary size up. Without those rows of the embedding, which is also the output layer,
    # a token that the tokenizer does not have can never be drawn.
    config = replace(task.config, vocab_size=tokenizer.get_vocab_size())
    params = {**task.params, "tok_emb.weight": task.params["tok_emb.weight"][: config.vocab_size]}
    stop = () if ignore_end else (tokenizer.token_to_id(END_OF_TEXT),)
    new = generate_tokens(params, ids, config, n_new, adapter, sampling=sampling, rng=rng, stop=stop, slide=True)
    return pieces(tokenizer, ids[0].tolist(), new)


def pieces(tokenizer, text, new):
    """Yield the text of some ids, then what each new id adds. Incomplete characters wait for their remaining bytes."""
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
