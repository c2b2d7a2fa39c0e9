"""Encode texts as token ids with byte-level BPE, and decode ids to texts.

All functions use a `Tokenizer` from `tokenizers`, Hugging Face's library. The model's files (`tokenizer_files.py`)
determine which tokens the tokenizer adds to a text, and whether it recognises special tokens in a text.

Byte-level means that all 256 bytes are in the vocabulary, so encoding a text never yields an unknown token (Radford et
al. 2019, section 2.2; byte-pair merges: Sennrich et al. 2016).
"""

import math
import re

import numpy as np

from ..checked import integer_vector, whole_number
from .normalizers import check_growth, normalizer
from .tokenizer_files import END_OF_TEXT, PAD, library

SURROGATE = re.compile("[\ud800-\udfff]")  # a lone surrogate, which UTF-8 cannot encode
CHUNK = 1024  # texts encoded at a time; limits the memory that the library's Encoding objects take


def train_tokenizer(texts, vocab_size=8000):
    """Learn a byte-level BPE vocabulary. The same texts give the same tokenizer, regardless of the number of threads.

    Parameters
    ----------
    texts : sequence of str, raw texts; the tokenizer normalises them
    vocab_size : int ≥ 258, the maximum size: 2 special tokens, 256 bytes, and the merges that the texts provide

    Returns
    -------
    Tokenizer

    Raises
    ------
    ValueError, TypeError
        If `vocab_size` is too small, there are no texts, or `texts` is a single str or has items of other types.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    check_texts(texts)
    if len(texts) == 0:
        raise ValueError("texts: got none, expected at least one text to train on")
    vocab_size = whole_number("vocab_size", vocab_size, least=258)  # 256 bytes and 2 special tokens

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer()
    # A space before the first word makes it the same token as in the middle of a text. Decoding removes the space.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PAD],  # ids 0 and 1
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # <|endoftext|> is added before each text. Within a text, it is read as plain characters, so that no text can forge
    # its end. The first setting is saved in tokenizer.json, the second in tokenizer_config.json; see `new_files`.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A",
        pair=f"{END_OF_TEXT} $A {END_OF_TEXT} $B:1",
        special_tokens=[(END_OF_TEXT, 0)],
    )
    tokenizer.encode_special_tokens = True
    return tokenizer


def pad_id(tokenizer):
    """The id of the padding token, or 0 if the vocabulary has none (the model never reads padding)."""
    return tokenizer.token_to_id(PAD) or 0


def normalise(tokenizer, text):
    """Normalise a text as the tokenizer does, so that a word-based baseline sees the same words as the model."""
    check_texts([text])
    with library("text: the tokenizer cannot normalise it"):
        check_growth(tokenizer.normalizer, [text])
        return text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)


def encode(tokenizer, texts, max_length=None):
    """Return the token ids of each text.

    Parameters
    ----------
    tokenizer : Tokenizer
    texts : sequence of str
    max_length : int, at least 1, or None; longer sequences are truncated, see `truncate`

    Returns
    -------
    list of (T,) int64 arrays, one for each text, including the tokens that the tokenizer adds; an array may be empty

    Raises
    ------
    ValueError, TypeError
        If `max_length` is below 1, `texts` is a single str or contains anything other than str, or the tokenizer fails,
        for example because a regular expression takes too long.
    """
    check_texts(texts)
    if max_length is not None:
        max_length = whole_number("max_length", max_length)
    sequences = []
    for start in range(0, len(texts), CHUNK):
        encodings = encode_chunk(tokenizer, list(texts[start : start + CHUNK]), start)
        sequences += [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
    return sequences if max_length is None else truncate(tokenizer, sequences, max_length)


def encode_chunk(tokenizer, texts, start):
    """Encode texts with the library; if a text fails, the ValueError gives its index, counted from `start`."""
    try:
        with library(f"text {start}: the tokenizer cannot encode it"):
            check_growth(tokenizer.normalizer, texts)
            return tokenizer.encode_batch_fast(texts)
    except ValueError:
        if len(texts) == 1:
            raise
        return [encode_chunk(tokenizer, [text], row)[0] for row, text in enumerate(texts, start)]


def truncate(tokenizer, sequences, max_length):
    """Truncate sequences from `encode` on the right, but keep the tokens that the tokenizer adds after each text."""
    _, n_last = n_added(tokenizer)

    def cut(ids):
        return np.concatenate([ids[: max(0, max_length - n_last)], ids[len(ids) - n_last :]])[:max_length]

    return [ids if len(ids) <= max_length else cut(ids) for ids in sequences]


def windows(tokenizer, sequences, length, overlap, most=None):
    """Cut sequences from `encode` into windows that a model can read, each with the tokens that the tokenizer adds.

    A sequence of more than `length` tokens becomes windows of `length` tokens, evenly spaced from its start to its end.
    The number of windows is the smallest for which neighbours share at least `overlap` tokens.

    Parameters
    ----------
    tokenizer : Tokenizer
    sequences : list of N arrays (T_n,) of ids
    length, overlap : int; `overlap` is at most half of `length`
    most : int, the maximum number of windows per sequence, which may then leave gaps; None: no maximum

    Returns
    -------
    pieces : list of arrays of at most `length` ids
    rows : (number of pieces,) int64, the index of each piece's sequence, in ascending order
    """
    n_first, n_last = n_added(tokenizer)
    size = max(1, length - n_first - n_last)

    def cut(ids):
        if len(ids) <= length:
            return [ids]
        before, text, after = np.split(ids, [n_first, len(ids) - n_last])
        n = max(1, math.ceil((len(text) - overlap) / max(1, size - overlap)))
        starts = np.linspace(0, len(text) - size, min(n, most or n)).round().astype(int)
        return [np.concatenate([before, text[start : start + size], after]) for start in starts]

    cuts = [(row, piece) for row, ids in enumerate(sequences) for piece in cut(ids)]
    return [piece for _, piece in cuts], np.array([row for row, _ in cuts], dtype=np.int64)


def n_added(tokenizer):
    """Return the numbers of tokens that the tokenizer adds before and after each text."""
    with library("the tokenizer cannot encode a letter"):
        is_added = tokenizer.encode("a").special_tokens_mask
    return tuple(next((i for i, added in enumerate(mask) if not added), 0) for mask in (is_added, is_added[::-1]))


def decode(tokenizer, ids):
    """Decode token ids (T,) to normalised text, without special tokens.

    Raises
    ------
    ValueError, TypeError
        If an id is not in the vocabulary (the library would skip it), or `ids` is not a vector of integers.
    """
    ids = integer_vector("ids", ids)
    for token in np.unique(ids).tolist():
        if not 0 <= token < 2**32 or tokenizer.id_to_token(token) is None:
            raise ValueError(f"ids: got {token}, which is not the id of a token in this vocabulary")
    with library("ids: the tokenizer cannot decode them"):
        return tokenizer.decode(ids.tolist(), skip_special_tokens=True)


def check_texts(texts):
    """Raise an error unless `texts` is a sequence of strings that UTF-8 can encode, and is not itself a str."""
    if isinstance(texts, str):
        raise TypeError("texts: got a str, expected a list of str: wrap a single text as [text]")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {row}: got type {type(text).__name__}, expected str")
        if SURROGATE.search(text):  # how Python represents a non-UTF-8 byte in a command-line argument
            raise ValueError(f"text {row}: got {text!r}, expected UTF-8")
