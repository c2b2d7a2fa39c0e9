"""Real texts: load them, turn them into token ids, cut them into batches."""

from .batches import IGNORE_INDEX, Batch, class_batches, language_batches, pad_sequences, token_stream
from .licences import corpus_digest, load_licences
from .reviews import Labelled, Splits, load_reviews, text_digest
from .table import Table, encode_labels, label_names, read_table, split_table
from .texts import read_texts
from .tokenizer import END_OF_TEXT, PAD, decode, encode, load_tokenizer, normalise, pad_id, train_tokenizer

__all__ = [
    "END_OF_TEXT",
    "IGNORE_INDEX",
    "PAD",
    "Batch",
    "Labelled",
    "Splits",
    "Table",
    "class_batches",
    "corpus_digest",
    "decode",
    "encode",
    "encode_labels",
    "label_names",
    "language_batches",
    "load_licences",
    "load_reviews",
    "load_tokenizer",
    "normalise",
    "pad_id",
    "pad_sequences",
    "read_table",
    "read_texts",
    "split_table",
    "text_digest",
    "token_stream",
    "train_tokenizer",
]
