"""Texts and conversations: fine-tune a language model on them."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import class_batches, encode, language_batches, pad_id, read_chats, read_texts, token_stream
from ..formats import chat_rows, chat_template
from ..training import LANGUAGE_BATCH, evaluate, stream
from .finetune import Dataset
from .label_words import check_is_language_model
from .settings import check_path

TRAIN, VALIDATION = 0.8, 0.1  # shares of the data; the rest is the test part
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class LanguageData:
    """What `TextFile` and `Conversations` share: the test part's perplexity is measured before and after.

    Parameters
    ----------
    data : path of a file
    """

    data: str | Path

    def __post_init__(self):
        check_path("data", self.data)

    def paths(self):
        """The files that are read, by field."""
        return {"data": self.data}

    def fields(self):
        """The fields as plain values."""
        return {"task": self.task, "data": str(self.data)}

    def dataset(self, model, epoch_batches, validation, test, n_rows, longest, parts, counts, settings):
        """The Dataset of batches for training and evaluation; `counts` go into the results."""

        def perplexity_of(trained, name):
            loss = evaluate(trained.params, test, model.config, trained.adapter, threads=settings.threads)["loss"]
            return {name: perplexity(loss)}

        return Dataset(
            model,
            epoch_batches,
            validation,
            n_rows,
            longest,
            parts,
            lambda trained, history: perplexity_of(trained, "test_perplexity"),
            lambda: {**counts, **perplexity_of(model, "test_perplexity_before")},
        )

    def files(self, results):
        """The files to save beside the model: none."""
        return {}

    def summary(self, results):
        """The results as lines of text."""
        what = self.counted
        n, before, after = results[what], results["test_perplexity_before"], results["test_perplexity"]
        lines = [f"{what}: {n['train']:,} for training, {n['validation']:,} for validation, {n['test']:,} for testing"]
        if results.get("cut"):
            lines.append(f"      {results['cut']} are cut, because they are too long")
        if results.get("left_out"):
            lines.append(f"      {results['left_out']} are left out, because no part of an answer fits")
        return [*lines, f"test perplexity {after:.1f} (before: {before:.1f})"]


class TextFile(LanguageData):
    """A UTF-8 text, see `read_texts`: the first eight tenths are for training, the last tenth is for testing."""

    task, counted = "text", "tokens"

    def read(self, model, settings):
        """The Dataset for a model; see `finetune`."""
        check_is_language_model(model)
        tokens, length = token_stream(encode(model.tokenizer, read_texts(self.data))), settings.max_tokens
        train, validation, test = parts = split(tokens)
        if len(train) <= length or len(validation) < 2:
            needed = max(math.ceil((length + 1) / TRAIN), 20)
            raise ValueError(f"data: {self.data} has {len(tokens)} tokens, expected at least {needed}")

        def epoch_batches(rng):
            return list(language_batches(train, settings.batch_size, length, rng))

        evaluated = [list(language_batches(part, LANGUAGE_BATCH, length)) for part in (validation, test)]
        counts = {"tokens": dict(zip(PARTS, map(len, parts)))}
        return self.dataset(model, epoch_batches, *evaluated, len(train) // length, length, parts, counts, settings)


class Conversations(LanguageData):
    """A file with `prompt` and `completion`, or with `messages`, see `read_chats`: only the answers are learnt.

    Eight tenths of the conversations, drawn by the seed, are for training, one tenth is for testing.
    """

    task, counted = "chat", "conversations"

    def read(self, model, settings):
        """The Dataset for a model; see `finetune`."""
        check_is_language_model(model)
        chats, template, pad = read_chats(self.data), chat_template(model.files), pad_id(model.tokenizer)
        order = stream(settings.seed, "sample").permutation(len(chats.conversations))
        parts, n_cut, n_empty = [], 0, 0
        for part in split(order):
            chosen, places = ([values[i] for i in part] for values in (chats.conversations, chats.places))
            rows = chat_rows(chosen, model.tokenizer, template, settings.max_tokens, places)
            parts.append(tuple(map(list, zip(*rows.rows))) or ([], []))
            n_cut, n_empty = n_cut + rows.n_cut, n_empty + rows.n_empty
        if not all(ids for ids, _ in parts):
            fault = f"has {len(order)} conversations, expected at least 10 that fit the context"
            raise ValueError(f"data: {self.data} {fault}")
        train = parts[0]

        def epoch_batches(rng):
            return class_batches(*train, settings.batch_size, pad, rng)

        evaluated = [class_batches(*part, LANGUAGE_BATCH, pad) for part in parts[1:]]
        sizes, arrays = (len(train[0]), max(map(len, train[0]))), [array for part in parts for array in part]
        counts = {"conversations": {name: len(ids) for name, (ids, _) in zip(PARTS, parts)}}
        counts |= {"cut": n_cut, "left_out": n_empty}
        return self.dataset(model, epoch_batches, *evaluated, *sizes, arrays, counts, settings)


def split(data):
    """The training, validation and test part of an array."""
    return np.split(data, [int(TRAIN * len(data)), int((TRAIN + VALIDATION) * len(data))])


def perplexity(loss):
    """e to the loss in nats per token; FloatingPointError if no float can hold it."""
    if not loss < 700:
        raise FloatingPointError(f"the perplexity, e to the {loss:.4g}, is too large")
    return math.exp(loss)
