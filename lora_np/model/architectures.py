"""The table of the package's architectures."""

from .bert import BERT
from .gpt2 import GPT2
from .llama import LLAMA
from .llama_family import QWEN2, QWEN3, SMOLLM3

ARCHITECTURES = {
    record.name: record for record in (GPT2, LLAMA, QWEN2, QWEN3, SMOLLM3, BERT)
}  # GPT-2 first: old files name no architecture


def architecture(config):
    """The Architecture of a configuration."""
    for record in ARCHITECTURES.values():
        if type(config) is record.config_class:
            return record
    raise TypeError(f"config: got {type(config).__name__}, expected a configuration of {' or '.join(ARCHITECTURES)}")


def modules(config):
    """The model's layers in execution order, name -> LayerSpec."""
    return architecture(config).modules(config)


def check_writes(config, argument="model"):
    """Raise ValueError, naming `argument`, if the model cannot generate text: if it is a classifier or an encoder."""
    if config.n_classes:
        raise ValueError(f"{argument}: got a classifier with {config.n_classes} classes, expected a language model")
    if not architecture(config).writes:
        raise ValueError(f"{argument}: {architecture(config).name} is an encoder, expected a language model")
