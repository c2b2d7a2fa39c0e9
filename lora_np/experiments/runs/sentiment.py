"""The task of the main job: is a Rotten Tomatoes snippet positive or negative?"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ...data import PAD, Batch, class_batches, encode, load_reviews, load_tokenizer
from ...formats import PRETRAINED

BATCH_SIZE = 32
MAX_LENGTH = 128  # tokens; the longest snippet has 95


class Encoded(NamedTuple):
    """One split as token ids."""

    sequences: list[np.ndarray]
    labels: np.ndarray  # (N,) int64


class Task(NamedTuple):
    train: Encoded
    validation: Encoded
    test: Encoded
    pad_id: int

    def epoch_batches(self, rng):
        """The training batches of one epoch, in an order drawn from rng."""
        return class_batches(self.train.sequences, self.train.labels, BATCH_SIZE, self.pad_id, rng)

    def evaluation_batches(self, split) -> list[Batch]:
        """The batches of "validation" or "test", in a fixed order."""
        part = getattr(self, split)
        return class_batches(part.sequences, part.labels, BATCH_SIZE, self.pad_id)


@lru_cache(maxsize=2)
def load_task(limit=None):
    """The snippets of all three splits as token ids.

    Parameters
    ----------
    limit : int or None, at most so many snippets of each split (for a quick look)

    Returns
    -------
    Task
    """
    tokenizer = load_tokenizer(PRETRAINED / "tokenizer.json")
    parts = [
        Encoded(encode(tokenizer, part.texts[:limit], MAX_LENGTH), part.labels[:limit])
        for part in load_reviews("rotten_tomatoes")
    ]
    return Task(*parts, pad_id=tokenizer.token_to_id(PAD))
