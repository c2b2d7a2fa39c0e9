"""What the explorer's sliders show: losses with each ΔW cut to a rank, and answers with each ΔW at a scale."""

from pathlib import Path

import numpy as np

from ..data import column_of, encode, encode_labels, load_licences, load_reviews, read_records, read_texts, token_stream
from ..formats import task_folder
from ..formats.task import SHIPPED
from ..training import language_loss, worthwhile_threads
from .classifier import class_probabilities
from .labelling import texts_to_label, trained_column
from .language_model import WINDOW, perplexity
from .start import most_tokens
from .writing import write_text_from

SCALES = [i / 4 for i in range(9)]  # 0 to 2
N_NEW = 30  # tokens of a continuation
OWN_DATA = {  # of the adapters that come with the package
    "critics": ("held-out snippets of Rotten Tomatoes", lambda: load_reviews("rotten_tomatoes").test.texts),
    "licences": ("held-out paragraphs of licences", lambda: load_licences().test),
}


# ---------------------------------------------------------------- data to measure on


def language_texts(adapter, text_file):
    """(what they are, texts, None) for a language model; None if there are none."""
    if text_file is not None:
        return f"the last of {Path(text_file).name}", read_texts(text_file), None
    folder = task_folder(adapter)
    if folder.parent != SHIPPED or folder.name not in OWN_DATA:
        return None
    what, load = OWN_DATA[folder.name]
    try:
        return what, load(), None
    except FileNotFoundError:  # the package of reviews is not installed
        return None


def labelled_texts(adapter, task, data, text_column, label_column, quoting):
    """(what they are, texts, classes (N,)) for a classifier; None without data."""
    if data is None:
        for name, value in {"text": text_column, "label": label_column}.items():
            if value is not None:
                raise ValueError(f"{name}: needs --data")
        return None
    records = read_records(data, quoting)
    texts = texts_to_label(adapter, records, text_column)
    labels = column_of(records, label_column or trained_column(adapter, "label_column"), "label_column")
    return f"rows of {Path(data).name}", texts, encode_labels([label.strip() for label in labels], task.labels)


def chosen(measured, n, spread):
    """At most n of the texts and classes: at equal distances, or the last ones."""
    what, texts, classes = measured
    n = min(n, len(texts))
    rows = np.linspace(0, len(texts) - 1, n).round().astype(int) if spread else np.arange(len(texts) - n, len(texts))
    return what, [texts[row] for row in rows], None if classes is None else classes[rows]


# ---------------------------------------------------------------- what the sliders show


def ranks_to_cut_to(directions):
    """0 to the largest rank of a ΔW if that is at most 8, otherwise 0, the powers of two below it, and itself."""
    most = max(len(sigma) for _, sigma, _ in directions.values())
    if most <= 8:
        return list(range(most + 1))
    return [0, *(2**i for i in range(most.bit_length()) if 2**i < most), most]


def by_rank(variant, directions, base, what, texts, classes, report):
    """Losses with each ΔW cut to a rank.

    Parameters
    ----------
    variant : function (k) -> Task
    directions : from `directions_of`
    base : folder or file of the base
    what, texts, classes : str, list of N str, and (N,) integers or None for a language model
    report : function of a line of text

    Returns
    -------
    dict: "what" and "texts", how many; "ranks"; and of `measure`'s numbers each a list with one for each rank
    """
    ranks, rows = ranks_to_cut_to(directions), []
    for k in ranks:
        report(f"measuring at rank {k} of {ranks[-1]} on {len(texts)} texts")
        rows.append(measure(variant(k), base, texts, classes))
    about = {"what": what, "texts": len(texts), "ranks": ranks}
    return about | {name: [row[name] for row in rows] for name in rows[0]}


def measure(task, base, texts, classes):
    """A language model's "loss" in nats per token, "perplexity" and "tokens", how many; a classifier's "loss" in nats
    per text, and "accuracy" in 0 to 1."""
    if classes is not None:
        p = class_probabilities(task, texts)  # (N, K)
        of_class = np.maximum(p[np.arange(len(p)), classes], np.finfo(np.float32).tiny)
        return {"loss": float(-np.log(of_class).mean()), "accuracy": float(np.mean(p.argmax(axis=1) == classes))}
    length = most_tokens(task.config, base, None, WINDOW)
    stream = token_stream(encode(task.tokenizer, texts, length))
    loss = language_loss(task.params, task.config, stream, None, length, worthwhile_threads(task.params))
    return {"loss": loss, "perplexity": perplexity(loss), "tokens": len(stream)}


def by_scale(variant, prompts, report):
    """Answers with each ΔW multiplied by a scale.

    Parameters
    ----------
    variant : function (scale=) -> Task
    prompts : list of str
    report : function of a line of text

    Returns
    -------
    dict: "scales"; "prompts", a list of {prompt, and one for each scale in "answers": of a language model the greedy
        continuation, a str; of a classifier the probabilities of its K classes}
    """
    rows = [{"prompt": prompt, "answers": []} for prompt in prompts]
    for scale in SCALES:
        report(f"answering {len(prompts)} prompts at scale {scale:g}")
        task = variant(scale=scale)
        if task.labels is not None:
            answers = class_probabilities(task, prompts).tolist()
        else:
            answers = ["".join(list(write_text_from(task, prompt, N_NEW))[1:]) for prompt in prompts]
        for row, answer in zip(rows, answers):
            row["answers"].append(answer)
    return {"scales": SCALES, "prompts": rows}
