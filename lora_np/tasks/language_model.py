"""Your own text or conversations: fine-tune a language model on them, and save the adapter."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..adapters import AdapterConfig
from ..data import class_batches, encode, pad_id, read_chats, read_texts, token_stream
from ..formats import PRETRAINED, chat_rows, chat_template, model_place, save_task
from ..training import answer_training, blas_threads, evaluate, language_loss, language_training, stream, train
from .resuming import resumable
from .start import (
    MOST_TOKENS,
    Defaults,
    announce,
    answers_of,
    computing,
    end_training,
    is_large,
    load_base,
    most_tokens,
    passes,
    silent,
    start_training,
    training_settings,
)

ALL = ("all-linear",)
SMALL_BASE = Defaults({"lora": (4e-3, AdapterConfig(targets=ALL)), "full": (4e-4, None)}, 4, 16)
LARGE_BASE = Defaults({"lora": (1e-3, AdapterConfig(4, 8.0, targets=ALL)), "full": (5e-5, None)}, 1, 8)
WINDOW = 256  # tokens of a text that a large model reads at a time, unless more are wanted
TRAIN, VALIDATION = 0.8, 0.1  # shares of the data; the rest is the test part
EVALUATION_BATCH = 16  # rows of an evaluation


class Parts(NamedTuple):
    """What a language model is trained on, and tested on."""

    arrays: list  # all of it, for the digest of the run
    n_rows: int  # to train on
    longest: int  # tokens of the longest row
    training: Callable  # (params, config, adapter, **settings) -> arguments of `train`
    test_loss: Callable  # (params, config, adapter, threads) -> float, in nats per token
    counts: dict  # for the result


def parts_of(data):
    """An array's training, validation and test part."""
    return np.split(data, [int(TRAIN * len(data)), int((TRAIN + VALIDATION) * len(data))])


def finetune_text(text_file, out, **settings):
    """Fine-tune a language model on a text, and save the adapter or, for "full", the model.

    The first eight tenths of the file are the training part, the next tenth chooses the best weights, and the last
    tenth is the test part.

    Parameters
    ----------
    text_file : path of a UTF-8 text; see `read_texts`
    out : folder to write
    settings : see `teach`

    Returns
    -------
    dict: tokens of each part, test perplexity before and after, trainable parameters
    """

    def read(model, length, seed):
        tokens = token_stream(encode(model.tokenizer, read_texts(text_file)))
        training, validation, test = parts_of(tokens)
        if len(training) <= length or len(validation) < 2:
            needed = max(math.ceil((length + 1) / TRAIN), 20)
            raise ValueError(f"text_file: {text_file} has {len(tokens)} tokens, expected at least {needed}")

        def plan(params, config, adapter, **given):
            return language_training(params, config, adapter, training, validation, length=length, **given)

        def test_loss(params, config, adapter, threads):
            return language_loss(params, config, test, adapter, length, threads)

        counts = {"tokens": {"train": len(training), "validation": len(validation), "test": len(test)}}
        return Parts([training, validation, test], len(training) // length, length, plan, test_loss, counts)

    return teach(text_file, out, read, WINDOW, **settings)


def finetune_answers(data, out, **settings):
    """Fine-tune a language model on conversations, on the answers alone, and save as `finetune_text` does.

    Eight tenths of the conversations, drawn by the seed, are trained on, one tenth chooses the best weights, and one
    tenth is the test part.

    Parameters
    ----------
    data : path of a file with `prompt` and `completion`, or with `messages`; see `read_chats`
    out : folder to write
    settings : see `teach`

    Returns
    -------
    dict: conversations of each part, how many were cut and left out, perplexity of the test part's answers before and
        after, trainable parameters
    """

    def read(model, length, seed):
        chats, template = read_chats(data), chat_template(model.files)
        order = stream(seed, "sample").permutation(len(chats.conversations))
        parts, n_cut, n_empty = [], 0, 0
        for part in parts_of(order):
            chosen = [chats.conversations[i] for i in part], [chats.places[i] for i in part]
            rows = chat_rows(chosen[0], model.tokenizer, template, length, chosen[1])
            parts.append(tuple(map(list, zip(*rows.rows))) or ([], []))
            n_cut, n_empty = n_cut + rows.n_cut, n_empty + rows.n_empty
        training, validation, test = parts
        if not all(ids for ids, _ in parts):
            raise ValueError(f"data: {data} has {len(order)} conversations, expected at least 10 that fit the context")
        pad = pad_id(model.tokenizer)

        def plan(params, config, adapter, **given):
            return answer_training(params, config, adapter, training, validation, pad, **given)

        def test_loss(params, config, adapter, threads):
            batches = class_batches(*test, EVALUATION_BATCH, pad)
            return evaluate(params, batches, config, adapter, threads=threads)["loss"]

        names = ("train", "validation", "test")
        counts = {"conversations": {name: len(ids) for name, (ids, _) in zip(names, parts)}}
        counts |= {"cut": n_cut, "left_out": n_empty}
        arrays = [array for part in parts for array in part]
        return Parts(arrays, len(training[0]), max(map(len, training[0])), plan, test_loss, counts)

    return teach(data, out, read, MOST_TOKENS, **settings)


def teach(
    source,
    out,
    read,
    most,
    method="lora",
    adapter_config=None,
    learning_rate=None,
    epochs=None,
    batch_size=None,
    seed=0,
    base=PRETRAINED,
    dropout=0.0,
    weights="dense",
    recompute=False,
    threads=None,
    max_tokens=None,
    report=silent,
):
    """Fine-tune a language model on data, test it, and save it.

    Parameters
    ----------
    source : path of the data
    out : folder to write
    read : function (model, length, seed) -> Parts; length is the most tokens in a row
    most : int, that a large base reads if max_tokens is None
    method : "lora" or "full"
    adapter_config : AdapterConfig of LoRA or a variant; None: LoRA on all linear layers, of rank 8, or of rank 4 for a
        large base
    max_tokens : int, of a row. None: n_positions, or for a large base at most `most`
    learning_rate, epochs, batch_size, seed, base, dropout, weights, recompute, threads, report : as in `finetune`

    Returns
    -------
    dict, see `finetune_text`
    """
    base = model_place(base)
    defaults = LARGE_BASE if is_large(base) else SMALL_BASE
    adapter_config, settings = training_settings(
        defaults, method, learning_rate, adapter_config, epochs, batch_size, seed, out, (base, source)
    )
    model = load_base(base, dropout, adapter_config, weights)
    params, config = model.params, model.config
    if config.n_classes:
        raise ValueError(f"base: {base} is a classifier, expected a language model")
    parts = read(model, most_tokens(config, base, max_tokens, most), seed)
    settings |= passes(base, epochs, settings["batch_size"], parts.n_rows)
    settings |= computing(base, settings["batch_size"], parts.longest, threads, recompute)
    threads = settings["threads"]
    frozen, start = start_training(params, config, adapter_config, seed)
    given = parts.training(frozen, config, start, **settings)
    facts = {"method": method, "adapter": adapter_config, "model": config, "weights": weights, **settings}
    announce(report, params, config, start, given, settings["batch_size"], parts.longest)
    with blas_threads(1), answers_of(base):
        before = perplexity(parts.test_loss(params, config, None, threads))
    with resumable(out, given, base, parts.arrays, facts, report) as more:
        state = train(**given, **more)
        params, adapter, trained = end_training(params, frozen, start, state)
        with blas_threads(1):
            after = perplexity(parts.test_loss(params, config, adapter, threads))
        result = {
            "method": method,
            **parts.counts,
            "test_perplexity_before": before,
            "test_perplexity": after,
            "learning_rate": settings["learning_rate"],
            **trained,
        }
        save_task(out, model._replace(params=params, adapter=adapter), base, result)
    return result


def perplexity(loss):
    """e to the loss in nats per token; FloatingPointError if no float can hold it."""
    if not loss < 700:
        raise FloatingPointError(f"the perplexity, e to the {loss:.4g}, is too large")
    return math.exp(loss)
