"""What `finetune` and `finetune_text` share: checks, the model to start from, and the model to save."""

from dataclasses import replace
from typing import NamedTuple

from ..adapters import Adapter, AdapterConfig, on_given_base, start_adapter
from ..adapters.starts import STARTS
from ..checked import one_of, whole_number
from ..formats import check_folder, load_model, tokenizer_of
from ..training import attach, stream


class Start(NamedTuple):
    """A model before training."""

    params: dict  # as loaded, for a classifier with its new head
    frozen: dict  # what the adapter is trained on: `params`, unless the adapter's init changed them
    adapter: Adapter | None  # None: the whole model is trained


def check_settings(method, methods, adapter_config, epochs, batch_size, out, base):
    """Check the arguments of a fine-tuning before anything is read; return its AdapterConfig, None for "full"."""
    one_of("method", method, methods)
    whole_number("epochs", epochs)
    whole_number("batch_size", batch_size)
    check_folder(out, "out", (base,))
    if method == "full":
        return None
    if method == "head":
        return AdapterConfig(targets=())
    init, kind = adapter_config.init, adapter_config.kind
    if init == "loftq":
        raise ValueError("init: got 'loftq', which needs a quantised base; expected another init")
    if init in STARTS and kind != "lora":
        raise ValueError(f"init: {init!r} needs kind 'lora' here, got {kind!r}: see `on_given_base`")
    return adapter_config


def load_base(base, dropout):
    """The weights, configuration and tokenizer of the model to start from."""
    params, config = load_model(base)
    config = replace(config, dropout=dropout)
    return params, config, tokenizer_of(base, config)


def starting_point(params, adapter_config, seed):
    """The model and a fresh adapter, or None without a configuration."""
    if adapter_config is None:
        return Start(params, params, None)
    return Start(params, *start_adapter(params, adapter_config, stream(seed, "adapter")))


def to_save(start, best):
    """The model and the adapter (or None) to save: the best weights, in a form that fits the unchanged base."""
    params, adapter = attach(start.frozen, start.adapter, best)
    if adapter is None:
        return params, None
    return start.params, on_given_base(start.params, start.adapter, adapter)
