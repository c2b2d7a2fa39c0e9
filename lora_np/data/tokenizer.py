"""Byte-level BPE: text to token ids and back.

The Hugging Face `tokenizers` library does the work, and one standard ``tokenizer.json`` has all of it: normalisation,
merges, special tokens. Every program that loads this file (transformers'
``PreTrainedTokenizerFast(tokenizer_file=...)``, Rust, JavaScript) gets the same ids as this module.

Byte-level means that the 256 bytes are in the vocabulary, so no text has an unknown token (Radford et al. 2019,
section 2.2; byte-pair merges: Sennrich et al. 2016). A tokenizer is a `tokenizers.Tokenizer` throughout.
"""

import numpy as np

from ..checked import integer_vector, whole_number
from .texts import existing_file

END_OF_TEXT = "<|endoftext|>"  # id 0: before each text, and so also between two
PAD = "<|pad|>"  # id 1: pads rows to a common length, on the right

SPACED_MARKS = '.,;:!?"()*'  # the marks that the Rotten Tomatoes snippets have between spaces
CHUNK = 1024  # texts encoded at a time, to limit the memory of the library's Encoding objects


def train_tokenizer(texts, vocab_size=8000):
    """Learn a byte-level BPE vocabulary. The same texts give the same tokenizer, for any number of threads.

    Parameters
    ----------
    texts : sequence of str, raw texts; they are normalised here
    vocab_size : int, at least 258: 2 special tokens, 256 bytes, and the rest merges; a small corpus may have fewer

    Returns
    -------
    Tokenizer

    Raises
    ------
    ValueError, TypeError
        If `vocab_size` is too small, there are no texts, or `texts` is a single str or has anything but str.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    check_texts(texts)
    if len(texts) == 0:
        raise ValueError("texts: got none, expected at least one text to learn from")
    vocab_size = whole_number("vocab_size", vocab_size, least=258)  # 256 bytes and 2 special tokens

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer()
    # With a space before the first word, a word is the same token at the start as in the middle.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    # Decoding removes that space again.
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PAD],  # ids 0 and 1
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return with_end_in_front(tokenizer, 0)


def normalizer():
    """Bring every text into the style of the Rotten Tomatoes snippets.

    ``He said "It's 9.5/10"--wow!<br />`` becomes ``he said " it's 9 . 5/10 " -- wow !``: lower case, marks
    between spaces, but not in contractions, hyphens, slashes and square brackets. A model that learned from the reviews
    then reads the snippets as the same language.
    """
    from tokenizers import Regex, normalizers

    replace = normalizers.Replace
    return normalizers.Sequence(
        [
            replace(Regex(r"</?[A-Za-z]+\s*/?>"), " "),  # <br />, <i>, </i>
            normalizers.Lowercase(),
            normalizers.NFC(),  # after Lowercase, because a lower-case letter may compose where its capital cannot
            # Typographic marks become ASCII, including those in Windows-1252 bytes (\x85, \x91 ...).
            replace(Regex("[`´‘’\x91\x92]"), "'"),
            replace(Regex("[“”„\x84\x93\x94]"), '"'),
            replace(Regex("…|\x85"), "..."),
            replace(Regex("[–—\x96\x97]|-{2,}"), " -- "),
            # Sixty marks say no more than three, and cost sixty tokens.
            *[replace(Regex(f"[{mark}]{{4,}}"), 3 * mark) for mark in ".!?*"],
            # Literal replacements: matches of no width, such as (?=[.,;]), make the library panic (0.23.3).
            *[replace(mark, f" {mark} ") for mark in SPACED_MARKS],
            replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )


def load_tokenizer(path):
    """Load a ``tokenizer.json``, from `train_tokenizer` or from a GPT-2.

    The tokenizer puts ``<|endoftext|>`` before each text and nothing after it, and neither pads nor truncates, whatever
    the file says: transformers writes the padding and the longest length that it last used into it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a tokenizer, or has no ``<|endoftext|>``.
    """
    from tokenizers import Tokenizer

    path = existing_file(path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception for errors in a file, or panics
        raise ValueError(f"path: got {str(path)!r}, which is not a tokenizer file: {error}") from error
    end = tokenizer.token_to_id(END_OF_TEXT)
    if end is None:
        raise ValueError(f"path: got {str(path)!r}, which has no token {END_OF_TEXT}")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return with_end_in_front(tokenizer, end)


def with_end_in_front(tokenizer, end):
    """Make the tokenizer put ``<|endoftext|>``, whose id is `end`, before each text.

    It encodes an ``<|endoftext|>`` in a text as plain characters, so no text can forge an end.
    """
    from tokenizers import processors

    tokenizer.encode_special_tokens = True
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A",
        pair=f"{END_OF_TEXT} $A {END_OF_TEXT} $B:1",
        special_tokens=[(END_OF_TEXT, end)],
    )
    return tokenizer


def pad_id(tokenizer):
    """The id of the padding; that of ``<|endoftext|>`` in a vocabulary without a padding token, such as GPT-2's."""
    pad = tokenizer.token_to_id(PAD)
    return tokenizer.token_to_id(END_OF_TEXT) if pad is None else pad


def normalise(tokenizer, text):
    """The text as the model sees it; a word baseline that splits it at spaces sees the same words."""
    check_texts([text])
    return text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)


def encode(tokenizer, texts, max_length=None):
    """Token ids of each text.

    Parameters
    ----------
    tokenizer : Tokenizer
    texts : sequence of str
    max_length : int, at least 1, or None: the longest sequence, with its ``<|endoftext|>``; longer ones are truncated
        on the right

    Returns
    -------
    list of (T,) int64 arrays, one for each text, each starting with ``<|endoftext|>``

    Raises
    ------
    ValueError, TypeError
        If `max_length` is below 1, or `texts` is a single str or has anything but str.
    """
    check_texts(texts)
    if max_length is not None:
        max_length = whole_number("max_length", max_length)
    sequences = []
    for start in range(0, len(texts), CHUNK):
        encodings = tokenizer.encode_batch_fast(list(texts[start : start + CHUNK]))
        sequences += [np.array(encoding.ids[:max_length], dtype=np.int64) for encoding in encodings]
    return sequences


def decode(tokenizer, ids):
    """The text of token ids (T,), without special tokens; for a whole text, its normalised form.

    Raises
    ------
    ValueError, TypeError
        If an id is outside the vocabulary (the library alone would skip it), or `ids` is not a vector of integers.
    """
    ids = integer_vector("ids", ids)
    vocab_size = tokenizer.get_vocab_size()
    if ids.size and not (0 <= ids.min() and ids.max() < vocab_size):
        raise ValueError(f"ids: got values from {ids.min()} to {ids.max()}, expected 0 to {vocab_size - 1}")
    return tokenizer.decode(ids.tolist(), skip_special_tokens=True)


def check_texts(texts):
    """Raise unless `texts` is a sequence of str (and not one str, whose letters would pass), all of them UTF-8."""
    if isinstance(texts, str):
        raise TypeError("texts: got a str, expected a list of str: wrap a single text as [text]")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {row}: got type {type(text).__name__}, expected str")
        if has_surrogate(text):  # Python's substitute for a byte of the command line that is not UTF-8
            raise ValueError(f"text {row}: got {text!r}, which is not UTF-8")


def has_surrogate(text):
    """Whether a str has half a surrogate pair, which UTF-8 cannot encode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
