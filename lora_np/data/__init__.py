"""Load texts, encode them as token ids, and cut them into batches."""

from .batches import IGNORE_INDEX, Batch, class_batches, language_batches, pad_sequences, token_stream
from .chats import read_chats, read_pairs, read_prompts
from .gguf_tokenizer import gguf_tokenizer_files, gguf_vocabulary
from .licences import corpus_digest, load_licences
from .records import Records, column_of, format_records, read_records, record_windows, table_suffix
from .reviews import Splits, Table, load_reviews, text_digest
from .table import encode_labels, label_names, read_table, split_table
from .texts import read_texts
from .tokenizer import decode, encode, normalise, pad_id, train_tokenizer, truncate, windows
from .tokenizer_files import END_OF_TEXT, FILES, PAD, load_tokenizer, model_files, new_files

__all__ = [
    "Batch", "END_OF_TEXT", "FILES", "IGNORE_INDEX", "PAD", "Records", "Splits", "Table", "class_batches", "column_of",
    "corpus_digest", "decode", "encode", "encode_labels", "format_records", "gguf_tokenizer_files", "gguf_vocabulary",
    "label_names", "language_batches", "load_licences", "load_reviews", "load_tokenizer", "model_files", "new_files",
    "normalise", "pad_id", "pad_sequences", "read_chats", "read_pairs", "read_prompts",
    "read_records", "read_table", "read_texts",
    "record_windows", "split_table", "table_suffix", "text_digest", "token_stream", "train_tokenizer", "truncate",
    "windows",
]  # fmt: skip
