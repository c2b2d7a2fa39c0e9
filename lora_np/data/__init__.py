"""Real texts: load them, turn them into token ids, cut them into batches."""

from .batches import IGNORE_INDEX, Batch, class_batches, language_batches, pad_sequences, token_stream
from .chats import Chats, read_chats
from .gguf_tokenizer import gguf_tokenizer_files
from .gguf_vocabulary import gguf_vocabulary
from .licences import corpus_digest, load_licences
from .records import Records, column_of, format_records, read_records, table_suffix
from .reviews import Labelled, Splits, load_reviews, text_digest
from .table import Table, encode_labels, label_names, read_table, split_table
from .texts import read_texts
from .tokenizer import decode, encode, normalise, pad_id, train_tokenizer, truncate
from .tokenizer_files import END_OF_TEXT, FILES, PAD, load_tokenizer, model_files, new_files
