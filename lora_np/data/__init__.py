"""Real texts: load them, turn them into token ids, cut them into batches."""

from .batches import IGNORE_INDEX, Batch, class_batches, language_batches, pad_sequences, token_stream
from .reviews import Labelled, Splits, load_reviews, text_digest
from .table import Table, TableSplits, encode_labels, label_names, read_table, split_table
from .tokenizer import END_OF_TEXT, PAD, decode, encode, load_tokenizer, normalise, train_tokenizer

__all__ = [
    "END_OF_TEXT",
    "IGNORE_INDEX",
    "PAD",
    "Batch",
    "Labelled",
    "Splits",
    "Table",
    "TableSplits",
    "class_batches",
    "decode",
    "encode",
    "encode_labels",
    "label_names",
    "language_batches",
    "load_reviews",
    "load_tokenizer",
    "normalise",
    "pad_sequences",
    "read_table",
    "split_table",
    "text_digest",
    "token_stream",
    "train_tokenizer",
]
