"""Generate text piece by piece."""

import itertools
import re
import warnings
from datetime import datetime

import numpy as np

from ..checked import quoted
from ..data import decode, encode
from ..data.tokenizer_files import GENERATION
from ..formats import chat_prompts, chat_template
from ..formats.foreign_keys import foreign_keys, keys_with
from ..formats.hugging_face import generation_fields, special_ids
from ..model import GREEDY, Sampling, generate_tokens

UNFINISHED = "\ufffd"  # the bytes of an incomplete character decode to this
# A token for one byte in a tokenizer that is not byte-level. Valid sequences of such tokens are decoded together.
BYTE = re.compile("<0x[0-9A-F]{2}>")


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
    (ids,) = chat_prompts([messages], task.tokenizer, template, ["messages"], datetime.now())
    return continuation(task, ids, n_new, adapter, sampling, rng, shown=decode(task.tokenizer, ids))


def continuation(task, ids, n_new, adapter, sampling, rng, ignore_end=False, shown=""):
    """Yield the text of the ids (T,), minus its beginning `shown`, then the continuation; see `write_text_from`."""
    if task.config.n_classes:
        raise ValueError("model: got a classifier, expected a language model; use `predict` for a classifier")
    if len(ids) > (most := task.config.n_positions):
        warnings.warn(f"prompt: has {len(ids)} tokens, of which the model reads only the last {most}", stacklevel=2)
    fields = generation_fields(task.config, task.tokenizer, task.files)
    is_default = sampling == Sampling(sampling.temperature)
    if is_default and GENERATION in task.files and (others := other_defaults(fields)):
        warnings.warn(f"{GENERATION}: ignoring {others}; pass sampling settings instead", stacklevel=2)
    suppressed = fields.get("suppress_tokens") or []
    if not isinstance(suppressed, list) or not all(type(i) is int for i in suppressed):
        raise ValueError(f"{GENERATION}: suppress_tokens is {quoted(suppressed)}, expected a list of ids")
    # Some ids have no token: vocabularies may have gaps, and some models round the vocabulary size up.
    known = np.setdiff1d(list(task.tokenizer.get_vocab().values()), suppressed)
    never = np.setdiff1d(np.arange(task.config.vocab_size), known)
    settings = {"sampling": sampling, "rng": rng, "stop": () if ignore_end else end_ids(task), "never": never}
    new = generate_tokens(task.params, ids[None], task.config, n_new, adapter, slide=True, **settings)
    return pieces(task.tokenizer, ids.tolist(), new, shown)


def other_defaults(fields):
    """Format the settings in a `generation_config.json` that change how transformers generates text by default."""
    names = keys_with(foreign_keys()["generation_config.json"], "default")
    return ", ".join(
        f"{name} = {quoted(fields[name], 40)}" for name in names if fields.get(name) not in (None, False, 1)
    )


def end_ids(task):
    """Return the ids of the model's end-of-text tokens."""
    end = special_ids(task.config, task.tokenizer, task.files).get("eos_token_id")
    ids = end if isinstance(end, list) else [end]
    return tuple(i for i in ids if isinstance(i, int) and 0 <= i < task.config.vocab_size)


def pieces(tokenizer, text, new, shown=""):
    """Yield the decoded prompt, whose ids are `text`, then the new ids' text, as soon as each character is complete.

    If `shown` is not empty, the text begins with it, and only the rest is yielded.
    """
    for token in itertools.chain([()], new):
        text += map(int, token)
        settled = next((n for n in range(len(text), 0, -1) if not is_byte(tokenizer, text[n - 1])), 0)
        whole = decode(tokenizer, np.array(text[:settled], dtype=int))
        if not len(token) or (settled == len(text) and not whole.endswith(UNFINISHED)):
            yield whole[len(shown) :]
            shown = max(shown, whole, key=len)
    if len(whole := decode(tokenizer, np.array(text, dtype=int))) > len(shown):
        yield whole[len(shown) :]


def is_byte(tokenizer, token):
    return BYTE.fullmatch(tokenizer.id_to_token(token) or "") is not None
