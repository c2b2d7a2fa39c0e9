"""What a training step costs for models that this machine cannot train, counted on arrays of shapes.

`costs_of` counts what the step of one machine needs, if a batch's rows are divided among several machines. Each machine
sends the gradients of its rows, and receives the updated arrays.
"""

from typing import NamedTuple

from ..adapters import AdapterConfig
from ..checked import whole_number
from ..model import BertConfig, LlamaConfig, Qwen3Config
from .costs import step_bytes, step_flops

SMOLLM2 = LlamaConfig(49152, 8192, 576, 30, 9, 3, 64, 1536)
MODELS = {  # name -> configuration; the sizes are those of the published models
    "MiniLM, 22 M": BertConfig(30522, 512, 384, 6, 12, 1536, n_classes=2),
    "SmolLM2 135M": SMOLLM2,
    "Qwen 3 0.6B": Qwen3Config(151936, 40960, 1024, 28, 16, 8, 128, 3072),
    "Llama 3.2 1B": LlamaConfig(128256, 131072, 2048, 16, 32, 8, 64, 8192),
    "Qwen 3 1.7B": Qwen3Config(151936, 40960, 2048, 28, 16, 8, 128, 6144),
    "Llama 3.2 3B": LlamaConfig(128256, 131072, 3072, 28, 24, 8, 128, 8192),
    "Qwen 3 4B": Qwen3Config(151936, 40960, 2560, 36, 32, 8, 128, 9728),
    "Qwen 3 8B": Qwen3Config(151936, 40960, 4096, 36, 32, 8, 128, 12288, tied=False),
    "Llama 3.1 70B": LlamaConfig(128256, 131072, 8192, 80, 64, 8, 128, 28672, tied=False),
}
LORA = AdapterConfig(r=8, alpha=16.0, targets=("q_proj", "v_proj"))
Q4_K = 4.5 / 32  # bytes of a weight in Q4_K for each byte in float32


class Costs(NamedTuple):
    """What one machine needs for a step."""

    trained: int  # parameters
    flops: int
    weights: int  # bytes of the base in float32; matrices in Q4_K take 4.5/32 of it
    training: int  # bytes of the trained arrays' gradients and AdamW's moments
    activations: int  # bytes that the forward pass keeps for the backward pass
    inputs: int  # bytes of the blocks' inputs, which are kept instead if the blocks are recomputed
    traffic: int  # bytes sent and received; 0 for one machine


def costs_of(config, adapter_config=None, rows=16, T=128, machines=1):
    """Count a step on `rows` texts of T tokens that are divided among several machines.

    Parameters
    ----------
    config : the model's configuration
    adapter_config : AdapterConfig, or None for full fine-tuning
    rows, T : int
    machines : int, a divisor of rows

    Returns
    -------
    Costs
    """
    whole_number("machines", machines, most=rows)
    if rows % machines:
        raise ValueError(f"machines: {machines} does not divide the {rows} rows")
    shape = rows // machines, T
    sizes = step_bytes(config, *shape, adapter_config)
    trained = sizes.gradients
    return Costs(
        trained // 4,
        sum(step_flops(config, *shape, adapter_config).values()),
        sizes.parameters - (trained if adapter_config else 0),
        sizes.gradients + sizes.optimiser,
        sum(sizes.activations.values()),
        4 * config.n_layers * shape[0] * T * config.d_model,
        2 * trained if machines > 1 else 0,
    )
