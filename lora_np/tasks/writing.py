"""Generate text piece by piece."""

from datetime import datetime

import numpy as np

from ..checked import quoted
from ..data import decode, encode
from ..data.tokenizer import check_texts, library
from ..formats import chat_template, render_chat
from ..formats.hugging_face import special_ids
from ..model import GREEDY, generate_tokens

UNFINISHED = "\ufffd"  # the bytes of an incomplete character decode to this


def write_text_from(task, prompt, n_new, adapter=None, sampling=GREEDY, rng=None, ignore_end=False):
    """Yield the prompt and then, piece by piece, its continuation.

    When the text reaches n_positions tokens, only its second half is kept as context; see `generate_tokens`.

    Parameters
    ----------
    task : LoadedModel of a language model
    prompt : str, not blank
    n_new : int, the maximum number of tokens to generate
    adapter : Adapter or None
    sampling : Sampling
    rng : np.random.Generator; may be None if sampling.temperature is 0
    ignore_end : bool, continue after the model's end-of-text token (see `special_ids`) instead of stopping there

    Returns
    -------
    iterator of str; their concatenation is the text
    """
    if not prompt.strip():
        raise ValueError("prompt: is empty, expected at least one word")
    ids = encode(task.tokenizer, [prompt])[0]
    if not ids.size:
        raise ValueError(f"prompt: got {quoted(prompt)}, which has no tokens in this vocabulary; expected at least one")
    return continuation(task, ids, n_new, adapter, sampling, rng, ignore_end)


def answer_from(task, messages, n_new, adapter=None, sampling=GREEDY, rng=None):
    """Yield the answer to a conversation, piece by piece.

    Parameters
    ----------
    task : LoadedModel of a language model whose files have a chat template
    messages : list of dict with role and content; the last message is the user's
    n_new, adapter, sampling, rng : see `write_text_from`

    Returns
    -------
    iterator of str
    """
    template = chat_template(task.files)
    if template is None:
        raise ValueError("model: has no chat template, expected a chat model, such as smollm2")
    text = render_chat(template, messages, begins_answer=True, now=datetime.now())
    check_texts([text])
    with library("messages: the tokenizer cannot encode them"):
        ids = np.array(task.tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)
    texts = continuation(task, ids, n_new, adapter, sampling, rng)
    next(texts)  # skip the conversation itself
    return texts


def continuation(task, ids, n_new, adapter, sampling, rng, ignore_end=False):
    """Yield the text of the ids (T,), and then its continuation; see `write_text_from`."""
    if task.config.n_classes:
        raise ValueError("model: got a classifier, expected a language model; use `predict` for a classifier")
    # Some ids have no token: vocabularies may have gaps, and some models round the vocabulary size up.
    never = np.setdiff1d(np.arange(task.config.vocab_size), list(task.tokenizer.get_vocab().values()))
    settings = {"sampling": sampling, "rng": rng, "stop": () if ignore_end else end_ids(task), "never": never}
    new = generate_tokens(task.params, ids[None], task.config, n_new, adapter, slide=True, **settings)
    return pieces(task.tokenizer, ids.tolist(), new)


def end_ids(task):
    """Return the ids of the model's end-of-text tokens."""
    end = special_ids(task.config, task.tokenizer, task.files).get("eos_token_id")
    ids = end if isinstance(end, list) else [end]
    return tuple(i for i in ids if isinstance(i, int) and 0 <= i < task.config.vocab_size)


def pieces(tokenizer, text, new):
    """Yield the decoded prompt, whose ids are `text`, then the text of each new id once its characters are complete."""
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
