"""A classifier that answers in words: after a text and a question, the language model's own head names the label.

It needs no head of its own, so it runs wherever the language model does. A label's probability is that of its first
token among the first tokens of all labels.
"""

import numpy as np

from ..checked import quoted
from ..data import IGNORE_INDEX, encode
from ..data.tokenizer import library
from ..model import forward, modules
from ..ops import linear_forward, softmax_forward

QUESTION = "\nLabel:"  # between a text and its label


def answer_ids(tokenizer, labels, end=()):
    """The ids of each label as an answer, with a space in front and the ids `end` behind.

    Raises
    ------
    ValueError
        If two answers begin with the same token: then they could not be told apart.
    """
    with library("labels: the tokenizer cannot encode them"):
        answers = [tokenizer.encode(f" {label}", add_special_tokens=False).ids for label in labels]
    first = {}
    for label, ids in zip(labels, answers):
        if not ids or ids[0] in first:
            other = quoted(first[ids[0]]) if ids else "no answer at all"
            raise ValueError(f"labels: {quoted(label)} begins with the same token as {other}; give it another name")
        first[ids[0]] = label
    return [np.array([*ids, *end], dtype=np.int64) for ids in answers]


def prompt_ids(tokenizer, texts, question, most):
    """The ids of each text and the question, (T,) with T ≤ most: of a longer text the end is cut, not the question."""
    ending = encode(tokenizer, [question])[0]
    start = encode(tokenizer, [""])[0]  # what the tokenizer puts in front of each text, or around it
    ending = ending[len(start) :] if len(start) and np.array_equal(ending[: len(start)], start) else ending
    whole = encode(tokenizer, [text.strip() + question for text in texts])
    return [ids if len(ids) <= most else np.concatenate([ids[: most - len(ending)], ending]) for ids in whole]


def answer_rows(prompts, classes, answers):
    """Rows to train on: prompts with the answers of their classes, and the targets, `IGNORE_INDEX` in the prompt."""
    rows = [(prompt, answers[k]) for prompt, k in zip(prompts, classes)]
    ids = [np.concatenate([prompt, answer[:-1]]) for prompt, answer in rows]
    targets = [np.concatenate([np.full(len(prompt) - 1, IGNORE_INDEX), answer]) for prompt, answer in rows]
    return ids, targets


def answer_probabilities(params, batches, config, adapter, answers, run=map):
    """The probabilities of the labels, (B, K), for each batch of prompts."""
    name = f"{modules(config)['head'].parameters}.weight"  # of a tied head, the embedding
    table = params[name][np.array([ids[0] for ids in answers])]  # (K, C)

    def answered(batch):
        h, _ = forward(params, batch.ids, config, lengths=batch.lengths, adapter=adapter, head=False)  # (B, T, C)
        logits, _ = linear_forward(h[np.arange(len(h)), batch.lengths - 1], table, wanted=())  # (B, K)
        if not np.isfinite(logits).all():
            raise FloatingPointError("the logits became nan or infinite; the weights are damaged or far too large")
        return softmax_forward(logits)[0]

    return run(answered, batches)
