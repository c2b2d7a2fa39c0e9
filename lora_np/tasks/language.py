"""Data for fine-tuning a language model: texts and conversations."""

import math
from functools import partial

import numpy as np

from ..data import class_batches, encode, language_batches, pad_id, read_chats, read_texts, token_stream
from ..formats import chat_rows, chat_template
from ..model import check_writes
from ..training import LANGUAGE_BATCH, evaluate, stream
from .settings import Data, Dataset

TRAIN, VALIDATION = 0.8, 0.1  # fractions of the data; the rest is the test set
PARTS = ("train", "validation", "test")


class LanguageData(Data):
    """Data for a language model, whose perplexity on the test set is measured before and after training."""

    def summary(self, results):
        what = self.counted
        n, before, after = results[what], results["test_perplexity_before"], results["test_perplexity"]
        lines = [f"{what}: {n['train']:,} for training, {n['validation']:,} for validation, {n['test']:,} for testing"]
        if results.get("cut"):
            lines.append(f"      {results['cut']} are truncated, because they are too long")
        if results.get("left_out"):
            lines.append(f"      {results['left_out']} are left out, because no part of an answer fits")
        return [*lines, f"test perplexity {after:.1f} (before: {before:.1f})"]


class TextFile(LanguageData):
    """A UTF-8 text file (see `read_texts`), split in order into 80 % training, 10 % validation and 10 % test data."""

    task, counted = "text", "tokens"

    def read(self, model, settings):
        check_writes(model.config, "base")
        tokens, length = token_stream(encode(model.tokenizer, read_texts(self.data))), settings.max_tokens
        train, validation, test = parts = split(tokens)
        if len(train) <= length or len(validation) < 2:
            needed = max(math.ceil((length + 1) / TRAIN), 20)
            raise ValueError(f"data: {self.data} has {len(tokens)} tokens, expected at least {needed}")

        def epoch_batches(rng):
            return list(language_batches(train, settings.batch_size, length, rng))

        validation, test = (list(language_batches(part, LANGUAGE_BATCH, length)) for part in (validation, test))
        tests = perplexity_tests(model, test, {"tokens": dict(zip(PARTS, map(len, parts)))}, settings.threads)
        return Dataset(model, epoch_batches, validation, len(train) // length, length, *tests)


class Conversations(LanguageData):
    """A file of conversations (see `read_chats`), in which only the answers' tokens are targets.

    Each row has `prompt` and `completion`, or `messages`. Rows are split at random into 80 % training, 10 % validation
    and 10 % test data.
    """

    task, counted = "chat", "conversations"

    def read(self, model, settings):
        check_writes(model.config, "base")
        chats, template, pad = read_chats(self.data), chat_template(model.files), pad_id(model.tokenizer)
        order = stream(settings.seed, "sample").permutation(len(chats[0]))
        parts = []
        for part in split(order):
            chosen, places = ([values[i] for i in part] for values in chats)
            parts.append(chat_rows(chosen, model.tokenizer, template, settings.max_tokens, places))
        for name, part in zip(PARTS, parts):
            if not part.rows:
                fault = f"no {name} conversation has an answer within {settings.max_tokens} tokens"
                raise ValueError(f"data: {self.data}: {fault}; add more or shorter conversations or raise --max-tokens")
        train, *others = (list(map(list, zip(*part.rows))) for part in parts)  # ids and targets
        epoch_batches = partial(class_batches, *train, settings.batch_size, pad)
        validation, test = (class_batches(*part, LANGUAGE_BATCH, pad) for part in others)
        counts = {"conversations": {name: len(part.rows) for name, part in zip(PARTS, parts)}}
        counts |= {"cut": sum(part.n_cut for part in parts), "left_out": sum(part.n_empty for part in parts)}
        tests = perplexity_tests(model, test, counts, settings.threads)
        return Dataset(model, epoch_batches, validation, len(train[0]), max(map(len, train[0])), *tests)


def split(data):
    """Split an array, in order, into training, validation and test data."""
    return np.split(data, [int(TRAIN * len(data)), int((TRAIN + VALIDATION) * len(data))])


def perplexity_tests(model, batches, counts, threads):
    """Return the functions `test` and `test_base`, which measure the perplexity; `test_base` also returns `counts`."""

    def measure(trained):
        return perplexity(evaluate(trained.params, batches, model.config, trained.adapter, threads=threads)["loss"])

    return (
        lambda trained, history: ({"test_perplexity": measure(trained)}, {}),
        lambda: {**counts, "test_perplexity_before": measure(model)},
    )


def perplexity(loss):
    """Return the exponential of a loss in nats per token; raise FloatingPointError if the result overflows."""
    if not loss < 700:
        raise FloatingPointError(f"the perplexity exp({loss:.4g}) is too large")
    return math.exp(loss)
