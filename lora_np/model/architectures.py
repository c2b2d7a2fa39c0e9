"""The architectures, and the one that a configuration means."""

from . import gpt2, llama

ARCHITECTURES = {gpt2.ModelConfig: gpt2, llama.LlamaConfig: llama}


def architecture(config):
    """The file that describes a configuration's model: `gpt2` or `llama`."""
    return ARCHITECTURES[type(config)]


def modules(config):
    """The model's layers in execution order, name -> Module."""
    return architecture(config).modules(config)
