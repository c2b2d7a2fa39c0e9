"""Byte-level BPE: text to token ids and back.

The Hugging Face `tokenizers` library does the work, and one standard ``tokenizer.json`` carries all of it:
normalisation, merges, special tokens. Whoever loads that file (transformers'
``PreTrainedTokenizerFast(tokenizer_file=...)``, Rust, JavaScript) gets the same ids as this module.

Byte-level means that the 256 bytes are in the vocabulary, so that no text has an unknown token
(Radford et al. 2019, section 2.2; byte-pair merges: Sennrich et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"  # id 0: stands before each text, and so also between two
PAD = "<|pad|>"  # id 1: fills rows up to a common length, on the right

SPACED_MARKS = '.,;:!?"()*'  # what the Rotten Tomatoes snippets set between spaces
CHUNK = 1024  # texts encoded at a time, to bound the memory that the library's Encoding objects take


def train_tokenizer(texts: Sequence[str], vocab_size: int = 8000) -> Tokenizer:
    """Learn a byte-level BPE vocabulary. The same texts give the same tokenizer, whatever the threads.

    Parameters
    ----------
    texts : sequence of str
        Raw texts; they are normalised here.
    vocab_size : int
        Tokens in all: 2 special ones, 256 bytes, and the rest merges. A small corpus may have fewer.

    Raises
    ------
    ValueError
        If `vocab_size` has no room for the special tokens and the bytes, or there are no texts.
    TypeError
        If `texts` is a single str, or holds anything but str.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    check_texts(texts)
    if len(texts) == 0:
        raise ValueError("texts is empty; expected at least one text to learn from")
    if vocab_size < 258:
        raise ValueError(f"vocab_size is {vocab_size}; expected at least 258: 256 bytes and 2 special tokens")

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer()
    # With a space before the first word, a word is the same token at the start as in the middle.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    # ... and that space is taken off again after decoding.
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PAD],  # ids 0 and 1
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = end_in_front(0)
    return text_is_text(tokenizer)


def normalizer():
    """Bring every text into the style of the Rotten Tomatoes snippets.

    ``He said "It's 9.5/10"--wow!<br />`` becomes ``he said " it's 9 . 5/10 " -- wow !``: lower case, marks
    between spaces, contractions, hyphens, slashes and square brackets left whole. A model that learned
    from the reviews then reads the snippets as the same language.
    """
    from tokenizers import Regex, normalizers

    replace = normalizers.Replace
    return normalizers.Sequence(
        [
            replace(Regex(r"</?[A-Za-z]+\s*/?>"), " "),  # <br />, <i>, </i>
            normalizers.Lowercase(),
            normalizers.NFC(),  # last of the two: a lower-case letter may compose where its capital cannot
            # Typographic marks become ASCII, also where the file has Windows-1252 bytes (\x85, \x91 ...).
            replace(Regex("[`´‘’\x91\x92]"), "'"),
            replace(Regex("[“”„\x84\x93\x94]"), '"'),
            replace(Regex("…|\x85"), "..."),
            replace(Regex("[–—\x96\x97]|-{2,}"), " -- "),
            # A shout of sixty marks says no more than one of three, and costs sixty tokens.
            *[replace(Regex(f"[{mark}]{{4,}}"), 3 * mark) for mark in ".!?*"],
            # Literal replacements: matches of no width, as (?=[.,;]), make the library panic (0.23.3).
            *[replace(mark, f" {mark} ") for mark in SPACED_MARKS],
            replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )


def text_is_text(tokenizer: Tokenizer) -> Tokenizer:
    """Encode ``<|endoftext|>`` as plain characters if it stands in a text, so no text can forge an end."""
    tokenizer.encode_special_tokens = True
    return tokenizer


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load a ``tokenizer.json``: one that `train_tokenizer` made, or that of a GPT-2.

    Whatever else the file says, it puts ``<|endoftext|>`` before each text and nothing after it, and it neither
    pads nor cuts: transformers writes the padding and the longest length that it last used into the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no tokenizer, or has no ``<|endoftext|>``.
    """
    from tokenizers import Tokenizer

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path is {str(path)!r}; expected a tokenizer file, and there is no such file")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception for what is wrong in a file, or panics
        raise ValueError(f"path is {str(path)!r}, which is not a tokenizer file: {error}") from error
    end = tokenizer.token_to_id(END_OF_TEXT)
    if end is None:
        raise ValueError(f"path is {str(path)!r}, which has no token {END_OF_TEXT}")
    tokenizer.post_processor = end_in_front(end)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return text_is_text(tokenizer)


def end_in_front(end: int):
    """What puts ``<|endoftext|>`` before each text."""
    from tokenizers import processors

    return processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A",
        pair=f"{END_OF_TEXT} $A {END_OF_TEXT} $B:1",
        special_tokens=[(END_OF_TEXT, end)],
    )


def pad_id(tokenizer: Tokenizer) -> int:
    """The id that fills rows up; ``<|endoftext|>`` in a vocabulary without a token for it, such as GPT-2's own."""
    pad = tokenizer.token_to_id(PAD)
    return tokenizer.token_to_id(END_OF_TEXT) if pad is None else pad


def normalise(tokenizer: Tokenizer, text: str) -> str:
    """The text as the model sees it; a word baseline that splits it on spaces sees the same words."""
    check_texts([text])
    return text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_length: int | None = None) -> list[np.ndarray]:
    """Token ids of each text.

    Parameters
    ----------
    texts : sequence of str
    max_length : int, optional
        Longest sequence wanted, the ``<|endoftext|>`` in front included. Longer ones lose their right end.

    Returns
    -------
    list of (T,) int64 arrays
        One for each text, T from 1 (an empty text) to `max_length`, each starting with ``<|endoftext|>``.

    Raises
    ------
    TypeError
        If `texts` is a single str, or holds anything but str.
    ValueError
        If `max_length` is below 1.
    """
    check_texts(texts)
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length is {max_length}; expected None or at least 1")
    sequences = []
    for start in range(0, len(texts), CHUNK):
        encodings = tokenizer.encode_batch_fast(list(texts[start : start + CHUNK]))
        sequences += [np.array(encoding.ids[:max_length], dtype=np.int64) for encoding in encodings]
    return sequences


def decode(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> str:
    """The text of token ids (T,), special tokens left out; for a whole text, its normalised form.

    Raises
    ------
    ValueError
        If an id is outside the vocabulary (the library alone would skip it), or `ids` is not (T,).
    TypeError
        If the ids are no integers.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1:
        raise ValueError(f"ids has shape {ids.shape}; expected one dimension, (T,): decode one row at a time")
    if ids.size and not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"ids has dtype {ids.dtype}; expected integers")
    vocab_size = tokenizer.get_vocab_size()
    if ids.size and not (0 <= ids.min() and ids.max() < vocab_size):
        raise ValueError(f"ids run from {ids.min()} to {ids.max()}; expected 0 to {vocab_size - 1}")
    return tokenizer.decode(ids.tolist(), skip_special_tokens=True)


def check_texts(texts: Sequence[str]) -> None:
    """Raise unless `texts` is a sequence of str (and not one str: its letters would pass), all of them UTF-8."""
    if isinstance(texts, str):
        raise TypeError("texts is a str; expected a list of str: wrap a single text as [text]")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {row} has type {type(text).__name__}; expected str")
        if has_surrogate(text):  # Python's stand-in for a byte of the command line that is not UTF-8
            raise ValueError(f"text {row} is {text!r}, which is not UTF-8; expected characters alone")


def has_surrogate(text: str) -> bool:
    """Whether a str holds half a surrogate pair, which no UTF-8 can say."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
