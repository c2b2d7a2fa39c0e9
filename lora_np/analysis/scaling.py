"""What a training step costs for models that this machine cannot train, counted on arrays of shapes.

The results are in README.md, which a test compares with `memory_table` and `time_table`.
"""

from typing import NamedTuple

from ..adapters import AdapterConfig
from ..checked import whole_number
from ..model import BertConfig, LlamaConfig, Qwen3Config
from .costs import step_bytes, step_flops

MODELS = {  # name -> configuration; the sizes are those of the published models
    "MiniLM, 23 M": BertConfig(30522, 512, 384, 6, 12, 1536, n_classes=2),
    "SmolLM2 135M": LlamaConfig(49152, 8192, 576, 30, 9, 3, 64, 1536),
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
ROWS, TOKENS, MACHINES = 16, 128, 16


class Costs(NamedTuple):
    """What one machine needs for a step; all fields except `flops` are bytes in float32."""

    flops: int
    base: int  # the weights that are not trained
    trained: int
    state: int  # gradients and AdamW's moments
    activations: int  # stored for the backward pass
    recomputed: int  # stored instead if blocks are recomputed: their inputs, and one block's activations
    traffic: int  # sent in a step, by all machines together; see `training/cluster.py`


def costs_of(config, adapter_config=None, rows=ROWS, T=TOKENS, machines=1):
    """Count a step on `rows` texts of T tokens, which are divided equally among several machines.

    Parameters
    ----------
    config : the model's configuration
    adapter_config : AdapterConfig, or None for full fine-tuning
    rows, T : int
    machines : int, a divisor of rows

    Returns
    -------
    Costs

    Raises
    ------
    ValueError
        If `machines` does not divide `rows`, or as in `counted_step`.
    """
    whole_number("machines", machines, most=rows)
    if rows % machines:
        raise ValueError(f"machines: got {machines}, expected a divisor of the {rows} rows")
    shape = rows // machines, T
    sizes = step_bytes(config, *shape, adapter_config)
    trained, activations = sizes.gradients, sum(sizes.activations.values())
    return Costs(
        sum(step_flops(config, *shape, adapter_config).values()),
        sizes.parameters - trained,
        trained,
        sizes.gradients + sizes.optimiser,
        activations,
        4 * config.n_layers * shape[0] * T * config.d_model + activations // config.n_layers,
        2 * machines * trained if machines > 1 else 0,  # to each machine the trained arrays, from each the gradients
    )


def memory_table():
    """The memory of a step on one machine in GB, for each of MODELS, as rows of strings; the first is the header."""
    rows = [["model", "full fine-tuning", "of which state", "LoRA", "LoRA, recomputing", "and base in Q4_K"]]
    for name, config in MODELS.items():
        full, lora = costs_of(config), costs_of(config, LORA)
        sizes = [full.trained + full.state + full.activations, full.state]
        small = lora.trained + lora.state
        sizes += [lora.base + small + lora.activations, lora.base + small + lora.recomputed]
        sizes.append(Q4_K * lora.base + small + lora.recomputed)
        rows.append([name, *(readable(size / 1e9) for size in sizes)])
    return rows


def time_table(flops_per_second, bytes_per_second):
    """The work, traffic and time of a step, on one and on several machines, for each of MODELS; as `memory_table`.

    On several machines, the time is that of the matrix products plus that of receiving all gradients on one machine.
    """
    sixteen = f"{MACHINES} machines: "
    rows = [["model", "TFLOP, full", "LoRA", "one machine: s, full", "LoRA"]]
    rows[0] += [f"{sixteen}sent in GB, full", "LoRA", f"{sixteen}s, full", "LoRA"]
    for name, config in MODELS.items():
        alone = [costs_of(config, method) for method in (None, LORA)]
        shared = [costs_of(config, method, machines=MACHINES) for method in (None, LORA)]
        numbers = [costs.flops / 1e12 for costs in alone]
        numbers += [costs.flops / flops_per_second for costs in alone]
        numbers += [costs.traffic / 1e9 for costs in shared]
        numbers += [costs.flops / flops_per_second + costs.traffic / 2 / bytes_per_second for costs in shared]
        rows.append([name, *map(readable, numbers)])
    return rows


def readable(number):
    """Format a number with at least two significant digits."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
