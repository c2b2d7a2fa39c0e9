"""Token ids in, mini-batches out: short texts by length for a classifier, windows for a language model.

Padding stands on the right: under a causal mask no real token ever attends to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

IGNORE_INDEX = -100  # a target that no loss counts (PyTorch's convention)
BATCHES_PER_CHUNK = 16  # how many batches of rows are sorted by length together


class Batch(NamedTuple):
    """B rows of T tokens.

    A classifier's targets are one label a row, a language model's are the next token of every token, and
    `IGNORE_INDEX` where there is none.
    """

    ids: np.ndarray  # (B, T) int64, padded on the right
    targets: np.ndarray  # (B,) or (B, T) int64
    lengths: np.ndarray  # (B,) int64, real tokens in each row
    rows: np.ndarray  # (B,) int64, the index that each row had in the input


def pad_sequences(sequences: Sequence[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Fill up sequences on the right to the length of the longest.

    Parameters
    ----------
    sequences : sequence of B arrays (T_b,) of integers
    pad_id : int

    Returns
    -------
    ids : (B, max T_b) int64
    lengths : (B,) int64

    Raises
    ------
    ValueError
        If there are no sequences, or one of them is empty or has not one dimension.
    TypeError
        If a sequence is not of integers.
    """
    lengths = sequence_lengths(sequences)
    ids = np.full((len(sequences), lengths.max()), pad_id, dtype=np.int64)  # (B, T)
    for row, sequence in enumerate(sequences):
        ids[row, : lengths[row]] = sequence
    return ids, lengths


def class_batches(
    sequences: Sequence[np.ndarray],
    labels: np.ndarray,
    batch_size: int,
    pad_id: int,
    rng: np.random.Generator | None = None,
) -> list[Batch]:
    """One epoch of labelled texts, every row once, texts of similar length together.

    With `rng` (training): rows are shuffled, sorted by length within chunks of 16 batches, cut, and the
    batches shuffled. Sorting saves the work on padding; sorting only within chunks keeps it random who
    meets whom. Without `rng` (evaluation): sorted by length over all, a fixed order, least padding.

    Whatever the order, ``batch.rows`` leads back to the input::

        predicted = np.empty(len(sequences), dtype=np.int64)
        for batch in class_batches(sequences, labels, 64, pad_id):
            predicted[batch.rows] = predict(batch)

    Parameters
    ----------
    sequences : sequence of N arrays (T_n,) of integers
    labels : (N,) integers
        Without labels (prediction) pass zeros.
    batch_size : int
        Rows in a batch; one batch has fewer if it does not divide N.
    pad_id : int
    rng : numpy.random.Generator, optional

    Raises
    ------
    ValueError
        If there are no sequences, one is empty, the labels are not as many, or `batch_size` is below 1.
    TypeError
        If the labels or a sequence are not of integers.
    """
    lengths = sequence_lengths(sequences)
    labels = np.asarray(labels)
    if labels.shape != (len(sequences),):
        raise ValueError(f"labels has shape {labels.shape}; expected ({len(sequences)},): one for each sequence")
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels has dtype {labels.dtype}; expected integers")
    check_at_least_one("batch_size", batch_size)

    if rng is None:
        order = np.argsort(lengths, kind="stable")
    else:
        chunk_size = BATCHES_PER_CHUNK * batch_size
        shuffled = rng.permutation(len(sequences))
        # A stable sort leaves rows of equal length in their shuffled order.
        chunks = [chunk[np.argsort(lengths[chunk], kind="stable")] for chunk in cut(shuffled, chunk_size)]
        order = np.concatenate(chunks)

    groups = cut(order, batch_size)
    if rng is not None:
        groups = [groups[group] for group in rng.permutation(len(groups))]
    batches = []
    for rows in groups:
        ids, row_lengths = pad_sequences([sequences[row] for row in rows], pad_id)
        batches.append(Batch(ids, labels[rows].astype(np.int64), row_lengths, rows))
    return batches


def token_stream(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """All sequences end to end, (N,), in uint16 if the ids fit and int32 if not.

    `encode` puts ``<|endoftext|>`` before each text, so in the stream it also stands between two.

    Raises
    ------
    ValueError
        If there are no sequences, one is empty or has not one dimension, or an id is negative or too large.
    TypeError
        If a sequence is not of integers.
    """
    sequence_lengths(sequences)
    highest = max(int(np.max(sequence)) for sequence in sequences)
    lowest = min(int(np.min(sequence)) for sequence in sequences)
    if lowest < 0 or highest > np.iinfo(np.int32).max:
        raise ValueError(f"the token ids run from {lowest} to {highest}; expected 0 to {np.iinfo(np.int32).max}")
    dtype = np.uint16 if highest <= np.iinfo(np.uint16).max else np.int32
    return np.concatenate([np.asarray(sequence, dtype=dtype) for sequence in sequences])


def language_batches(
    stream: np.ndarray, batch_size: int, length: int, rng: np.random.Generator | None = None
) -> Iterator[Batch]:
    """One epoch of next-token prediction over a token stream.

    The stream is cut in windows of `length` inputs; the targets are the same window one token later, so
    a window's last target is the next one's first input and no token is a target twice.

    With `rng` (training): the windows start at a random offset, other cuts each epoch, and are shuffled.
    Each epoch has equally many windows, N // length - 1 (but at least one), and up to two windows' worth
    of tokens at the ends are left out. Without `rng` (evaluation): in order, and every token but the
    first is a target exactly once; what the last window lacks is padding with target `IGNORE_INDEX`.
    Either way the last batch may have fewer rows.

    Parameters
    ----------
    stream : (N,) integers
    batch_size : int
        Windows in a batch.
    length : int
        Inputs in a window, T.
    rng : numpy.random.Generator, optional
        All that is drawn is drawn at the call, not while the batches are consumed.

    Yields
    ------
    Batch
        `ids` and `targets` (B, T); `rows` counts the windows of this epoch from the start of the stream.

    Raises
    ------
    ValueError
        If the stream is too short for one window (training) or one target (evaluation), or has not one
        dimension, or `batch_size` or `length` is below 1.
    TypeError
        If the stream is not of integers.
    """
    stream = np.asarray(stream)
    if stream.ndim != 1:
        raise ValueError(f"stream has shape {stream.shape}; expected one dimension, (N,)")
    if not np.issubdtype(stream.dtype, np.integer):
        raise TypeError(f"stream has dtype {stream.dtype}; expected integers")
    check_at_least_one("batch_size", batch_size)
    check_at_least_one("length", length)
    needed = 2 if rng is None else length + 1
    if len(stream) < needed:
        raise ValueError(f"stream has {len(stream)} tokens; expected at least {needed}: inputs and the next token")

    if rng is None:
        offset = 0
        order = np.arange(-(-(len(stream) - 1) // length))  # rounded up
    else:
        windows = max(1, len(stream) // length - 1)
        offset = int(rng.integers(len(stream) - windows * length))  # leaves room for the last target
        order = rng.permutation(windows)
    return (language_batch(stream, offset, rows, length) for rows in cut(order, batch_size))


def language_batch(stream: np.ndarray, offset: int, rows: np.ndarray, length: int) -> Batch:
    """The windows `rows` (B,) of a stream, window w starting at ``offset + w * length``."""
    starts = offset + rows * length  # (B,)
    lengths = np.minimum(length, len(stream) - 1 - starts)  # (B,)
    inside = np.arange(length) < lengths[:, None]  # (B, T)
    positions = np.where(inside, starts[:, None] + np.arange(length), 0)  # (B, T)
    # Cast before filling in: -100 has no place in a stream of uint16.
    ids = np.where(inside, stream[positions].astype(np.int64), 0)  # (B, T), any id serves as padding here
    targets = np.where(inside, stream[positions + 1].astype(np.int64), IGNORE_INDEX)  # (B, T)
    return Batch(ids, targets, lengths, rows)


def cut(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Pieces of `size` rows, in order; the last may be shorter."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def sequence_lengths(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """(N,) int64, once every sequence is known to be a non-empty (T,) of integers."""
    if len(sequences) == 0:
        raise ValueError("sequences is empty; expected at least one")
    for row, sequence in enumerate(sequences):
        sequence = np.asarray(sequence)
        if sequence.ndim != 1:
            raise ValueError(f"sequence {row} has shape {sequence.shape}; expected one dimension, (T,)")
        if sequence.size == 0:
            raise ValueError(f"sequence {row} is empty; expected at least one token")
        if not np.issubdtype(sequence.dtype, np.integer):
            raise TypeError(f"sequence {row} has dtype {sequence.dtype}; expected integers")
    return np.array([len(sequence) for sequence in sequences], dtype=np.int64)


def check_at_least_one(name: str, value: int) -> None:
    """ValueError unless the count `value` is at least 1."""
    if value < 1:
        raise ValueError(f"{name} is {value}; expected at least 1")
