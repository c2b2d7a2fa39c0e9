"""A run without training: SmolLM2 classifies snippets with a prompt that may contain a few labelled snippets."""

from dataclasses import dataclass

import numpy as np

from ...data import class_batches, load_reviews, pad_id
from ...model import predict_logits
from ...tasks.label_words import label_head, label_ids, prompt_ids
from ...training import blas_threads, stream
from . import load_base

QUESTION = "\nSentiment:"
LABELS = ("negative", "positive")
MOST_TOKENS = 2048  # upper bound for a prompt; no prompt reaches it
BATCH_SIZE = 16


@dataclass(frozen=True)
class PromptRun:
    """The settings of a run that prompts SmolLM2 without training it.

    Parameters
    ----------
    shots : int, number of labelled training snippets at the start of each prompt, half from each class
    seed : int, for drawing and ordering these snippets
    split : "validation" or "test"
    limit : int, maximum number of snippets of each split, for a shortened run; None: all
    """

    shots: int
    seed: int
    split: str = "test"
    limit: int | None = None

    def carry_out(self):
        """Return the accuracy on the split, and an empty dict, because no arrays are trained."""
        reviews, model = load_reviews("rotten_tomatoes"), load_base("smollm2")
        first, part = examples(self, reviews.train), getattr(reviews, self.split)
        texts, labels = part.texts[: self.limit], part.labels[: self.limit]
        prompts = prompt_ids(model.tokenizer, [first + text for text in texts], QUESTION, MOST_TOKENS)
        batches = class_batches(prompts, labels, BATCH_SIZE, pad_id(model.tokenizer))
        head = label_head(model.params, model.config, label_ids(model.tokenizer, LABELS))
        with blas_threads(1):
            answers = list(predict_logits(model.params, batches, model.config, head=head))
        right = sum(int((logits.argmax(axis=1) == targets).sum()) for logits, targets in answers)
        return {f"{self.split}_accuracy": right / len(labels)}, {}


def examples(run, train):
    """The labelled snippets at the start of each prompt, as text."""
    rng, chosen = stream(run.seed, "sample"), []
    for label in (0, 1):
        chosen += rng.choice(np.flatnonzero(train.labels == label), run.shots // 2, replace=False).tolist()
    order = rng.permutation(chosen)
    return "".join(f"{train.texts[row].strip()}{QUESTION} {LABELS[train.labels[row]]}\n\n" for row in order)
