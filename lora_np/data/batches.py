"""Mini-batches of token ids: texts sorted by length for a classifier, windows of a stream for a language model.

Padding is on the right, so under a causal mask no token of the text attends to it.
"""

from typing import NamedTuple

import numpy as np

from ..checked import integer_vector, same_shape, whole_number

IGNORE_INDEX = -100  # the loss ignores targets with this value, as in PyTorch
BATCHES_PER_CHUNK = 16  # in training, rows are sorted by length within chunks of this many batches


class Batch(NamedTuple):
    """A batch of B rows with T tokens each.

    For a classifier, each row has one target, its label. For a language model, each token has one target: the next
    token or `IGNORE_INDEX`.
    """

    ids: np.ndarray  # (B, T) int64, padded on the right
    targets: np.ndarray  # (B,) or (B, T) int64
    lengths: np.ndarray  # (B,) int64, number of non-padding tokens in each row
    rows: np.ndarray  # (B,) int64, each row's index in the input


def pad_sequences(sequences, pad_id):
    """Pad sequences on the right to the length of the longest one.

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
    ValueError, TypeError
        If there are no sequences, or a sequence is empty or is not a vector of integers.
    """
    lengths = sequence_lengths(sequences)
    ids = np.full((len(sequences), lengths.max()), pad_id, dtype=np.int64)  # (B, T)
    for row, sequence in enumerate(sequences):
        ids[row, : lengths[row]] = sequence
    return ids, lengths


def class_batches(sequences, labels, batch_size, pad_id, rng=None):
    """Return one epoch of batches, in which every row occurs exactly once, with rows of similar length in each batch.

    With `rng` (training), the rows are shuffled and cut into chunks. Each chunk is sorted by length and cut into 16
    batches; then all batches are shuffled. Sorting reduces padding; sorting only within chunks keeps the batches
    random. Without `rng` (evaluation), all rows are sorted by length, which gives a fixed order and the least padding.

    `batch.rows` are indices into the input:

        predicted = np.empty(len(sequences), dtype=np.int64)
        for batch in class_batches(sequences, labels, 64, pad_id):
            predicted[batch.rows] = predict(batch)

    Parameters
    ----------
    sequences : sequence of N arrays (T_n,) of integers
    labels : (N,) integers; without labels (prediction), pass zeros. For a language model, a list of N arrays (T_n,)
        with each token's target or `IGNORE_INDEX`; padding also gets the target `IGNORE_INDEX`
    batch_size : int, number of rows in a batch; one batch has fewer if `batch_size` does not divide N
    pad_id : int
    rng : numpy.random.Generator or None

    Returns
    -------
    list of Batch

    Raises
    ------
    ValueError, TypeError
        If sequences or labels are invalid (see `pad_sequences`), or `batch_size` is below 1.
    """
    lengths = sequence_lengths(sequences)
    is_list = isinstance(labels, list) and len(labels) and np.ndim(labels[0]) == 1
    if is_list:
        if not np.array_equal(sequence_lengths(labels), lengths):
            raise ValueError("labels: a row has more or fewer targets than tokens, expected one target per token")
    else:
        labels = integer_vector("labels", labels)
        same_shape("labels", labels, lengths)
    batch_size = whole_number("batch_size", batch_size)

    if rng is None:
        order = np.argsort(lengths, kind="stable")
    else:
        shuffled = rng.permutation(len(sequences))
        # A stable sort keeps rows of equal length in their shuffled order.
        chunks = cut(shuffled, BATCHES_PER_CHUNK * batch_size)
        order = np.concatenate([chunk[np.argsort(lengths[chunk], kind="stable")] for chunk in chunks])

    groups = cut(order, batch_size)
    if rng is not None:
        groups = [groups[group] for group in rng.permutation(len(groups))]
    batches = []
    for rows in groups:
        ids, row_lengths = pad_sequences([sequences[row] for row in rows], pad_id)
        if is_list:
            targets, _ = pad_sequences([labels[row] for row in rows], IGNORE_INDEX)  # (B, T)
        else:
            targets = labels[rows].astype(np.int64)  # (B,)
        batches.append(Batch(ids, targets, row_lengths, rows))
    return batches


def token_stream(sequences):
    """Concatenate all sequences into one array (N,), of dtype uint16 if all ids fit, else int32.

    Texts are separated only by the tokens that the tokenizer adds to each text, such as ``<|endoftext|>``.

    Raises
    ------
    ValueError, TypeError
        If a sequence is invalid (see `pad_sequences`; it may be empty), or an id is negative or too large.
    """
    sequences = [sequence for sequence in sequences if len(sequence)]
    sequence_lengths(sequences)
    stream = np.concatenate(sequences)
    lowest, highest = int(stream.min()), int(stream.max())
    if lowest < 0 or highest > np.iinfo(np.int32).max:
        raise ValueError(f"sequences: got ids from {lowest} to {highest}, expected 0 to {np.iinfo(np.int32).max}")
    return stream.astype(np.uint16 if highest <= np.iinfo(np.uint16).max else np.int32)


def language_batches(stream, batch_size, length, rng=None):
    """Return one epoch of batches for next-token prediction over a token stream.

    The stream is cut into windows of `length` inputs. A window's targets are its inputs shifted by one token. Its last
    target is the next window's first input, so no token is a target twice.

    With `rng` (training), the first window starts at a random offset, which differs between epochs, and the windows are
    shuffled. Every epoch has N // length - 1 windows (but at least one); at the two ends, fewer than 2 · length tokens
    in total are dropped. Without `rng` (evaluation), the windows are in order, and every token except the first is a
    target exactly once. The last window's targets are padded with `IGNORE_INDEX`. The last batch may have fewer rows.

    Parameters
    ----------
    stream : (N,) integers
    batch_size : int, number of windows in a batch
    length : int, number of inputs in a window, T
    rng : numpy.random.Generator or None; all random numbers are drawn when the function is called, not during iteration

    Returns
    -------
    iterator of Batch
        `ids` and `targets` (B, T); `rows` are the windows' indices in this epoch, counted from the start of the stream.

    Raises
    ------
    ValueError, TypeError
        If the stream is not a vector of integers, is too short for one window (training) or one target (evaluation), or
        `batch_size` or `length` is below 1.
    """
    stream = integer_vector("stream", stream)
    batch_size, length = whole_number("batch_size", batch_size), whole_number("length", length)
    needed = 2 if rng is None else length + 1
    if len(stream) < needed:
        raise ValueError(f"stream: got {len(stream)} tokens, expected at least {needed} (inputs and the next token)")

    if rng is None:
        offset = 0
        order = np.arange(-(-(len(stream) - 1) // length))  # rounded up
    else:
        windows = max(1, len(stream) // length - 1)
        offset = int(rng.integers(len(stream) - windows * length))  # leaves one token for the last target
        order = rng.permutation(windows)
    return (language_batch(stream, offset, rows, length) for rows in cut(order, batch_size))


def language_batch(stream, offset, rows, length):
    """Make the Batch of the windows with indices `rows` (B,); window w starts at ``offset + w * length``."""
    starts = offset + rows * length  # (B,)
    lengths = np.minimum(length, len(stream) - 1 - starts)  # (B,)
    inside = np.arange(length) < lengths[:, None]  # (B, T)
    positions = np.where(inside, starts[:, None] + np.arange(length), 0)  # (B, T)
    # Cast before np.where, because uint16 cannot represent -100.
    ids = np.where(inside, stream[positions].astype(np.int64), 0)  # (B, T), padded with an arbitrary id
    targets = np.where(inside, stream[positions + 1].astype(np.int64), IGNORE_INDEX)  # (B, T)
    return Batch(ids, targets, lengths, rows)


def cut(order, size):
    """Cut `order` into slices of `size` rows; the last slice may be shorter."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def sequence_lengths(sequences):
    """Return the sequences' lengths, (N,) int64; raise an error if one is empty or is not a vector of integers."""
    if len(sequences) == 0:
        raise ValueError("sequences: got none, expected at least one")
    lengths = [len(integer_vector(f"sequence {row}", sequence)) for row, sequence in enumerate(sequences)]
    if 0 in lengths:
        raise ValueError(f"sequences: got no tokens in sequence {lengths.index(0)}, expected at least one")
    return np.array(lengths, dtype=np.int64)
