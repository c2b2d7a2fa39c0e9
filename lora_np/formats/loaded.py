"""A model in memory, with its adapter, tokenizer and labels."""

from typing import NamedTuple

from ..adapters import Adapter


class LoadedModel(NamedTuple):
    """A model with its tokenizer, ready to use."""

    params: dict  # the base's weights, without the adapter
    config: object  # a configuration, such as GPT2Config
    adapter: Adapter | None
    tokenizer: object
    labels: list[str] | None  # one for each class, in order; None for a language model without a question
    files: dict[str, bytes] = {}  # the tokenizer's unchanged files, see `model_files`; empty if it was newly trained
    max_tokens: int | None = None  # the maximum number of tokens that a classifier reads at once; None: n_positions
    overlap: int | None = None  # a classifier reads longer texts in windows with this overlap; None: it truncates them
    question: str | None = None  # the question that a language model answers with one of the labels, or None
