"""Classification without a new head: after a text and a question, the language model names the label.

Such a classifier works in every program that runs the language model. The labels' probabilities are the softmax of the
logits of the labels' first tokens.
"""

import numpy as np

from ..checked import quoted
from ..data import IGNORE_INDEX, encode
from ..data.tokenizer import library
from ..model import modules

QUESTION = "\nLabel:"  # follows each text


def label_ids(tokenizer, labels, end=()):
    """Return the token ids of each label's answer: a space, the label and the ids `end`.

    Raises
    ------
    ValueError
        If an answer has no tokens, or if two begin with the same token, because only first tokens are compared.
    """
    with library("labels: the tokenizer cannot encode them"):
        answers = [tokenizer.encode(f" {label}", add_special_tokens=False).ids for label in labels]
    first = {}
    for label, ids in zip(labels, answers):
        if not ids or ids[0] in first:
            fault = f"begins with the same token as {quoted(first[ids[0]])}" if ids else "has no tokens"
            raise ValueError(f"labels: {quoted(label)} {fault}; rename this label")
        first[ids[0]] = label
    return [np.array([*ids, *end], dtype=np.int64) for ids in answers]


def prompt_ids(tokenizer, texts, question, most):
    """Return the ids (T,) of each text followed by the question. If T would exceed `most`, the text is truncated."""
    ending = encode(tokenizer, [question])[0]
    start = encode(tokenizer, [""])[0]  # tokens that the tokenizer adds before each text, or before and after it
    ending = ending[len(start) :] if len(start) and np.array_equal(ending[: len(start)], start) else ending
    whole = encode(tokenizer, [text.strip() + question for text in texts])
    return [ids if len(ids) <= most else np.concatenate([ids[: most - len(ending)], ending]) for ids in whole]


def label_rows(prompts, classes, answers):
    """Return training rows: each prompt, followed by the answer for its class. Only the answer's tokens are targets.

    Parameters
    ----------
    prompts : list of N arrays of ids
    classes : (N,) integers
    answers : list of K arrays of ids, from `label_ids`

    Returns
    -------
    ids, targets : lists of N arrays
    """
    rows = [(prompt, answers[k]) for prompt, k in zip(prompts, classes)]
    ids = [np.concatenate([prompt, answer[:-1]]) for prompt, answer in rows]
    targets = [np.concatenate([np.full(len(prompt) - 1, IGNORE_INDEX), answer]) for prompt, answer in rows]
    return ids, targets


def label_head(params, config, answers):
    """Return the rows of a language model's head, (K, C), for the first token of each answer; see `predict_logits`."""
    name = f"{modules(config)['head'].parameters}.weight"  # the embedding, if the head is tied to it
    return params[name][np.array([ids[0] for ids in answers])]
