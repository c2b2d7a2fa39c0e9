"""What is timed: the rungs of a ladder of model sizes, the kinds of work, and the multiplications that each needs."""

from math import prod
from typing import NamedTuple

from ..adapters import AdapterConfig
from ..analysis import step_flops
from ..model import ModelConfig, parameter_shapes


class Rung(NamedTuple):
    """The shapes of one model and its batch."""

    d_model: int  # C; the MLP is F = 4 C wide
    n_layers: int
    n_heads: int
    length: int  # T, tokens in a row
    batch: int  # B, rows
    vocab_size: int  # V


RUNGS = (
    Rung(64, 2, 4, 64, 32, 2048),
    Rung(128, 4, 4, 64, 32, 4096),
    Rung(256, 4, 8, 64, 32, 4096),
    Rung(512, 6, 8, 128, 8, 8192),
    Rung(768, 2, 12, 128, 8, 8192),
)

WORKS = {
    "full": "a step of full training: forward, backward, AdamW",
    "lora_qv": "a LoRA step, r = 8 on q and v",
    "lora_all": "a LoRA step, r = 8 on every linear layer",
    "classifier": "a step of a classifier trained in full, on padded rows",
    "forward": "logits and loss, no gradients",
    "generate_1": "greedy generation of one row, with a key-value cache",
    "generate_8": "greedy generation of eight rows, with a key-value cache",
}
RANK = 8
N_CLASSES = 2
TARGETS = {"lora_qv": ("q_proj", "v_proj"), "lora_all": ("all-linear",)}
GENERATED_ROWS = {"generate_1": 1, "generate_8": 8}


def parse_rung(text):
    """A rung from its text: all six numbers, "64,2,4,64,32,2048", or the width alone of one in RUNGS, "64".

    Raises
    ------
    ValueError
        For anything else, with what came and what was expected.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"rungs: got {text!r}, expected whole numbers: {', '.join(Rung._fields)}") from None
    if len(numbers) == 1:
        found = [rung for rung in RUNGS if rung.d_model == numbers[0]]
        if not found:
            widths = ", ".join(str(rung.d_model) for rung in RUNGS)
            raise ValueError(f"rungs: got {text!r}, expected one of {widths}, or all of {','.join(Rung._fields)}")
        return found[0]
    if len(numbers) != len(Rung._fields) or min(numbers) < 1:
        raise ValueError(f"rungs: got {text!r}, expected six numbers of at least 1: {','.join(Rung._fields)}")
    rung = Rung(*numbers)
    if rung.d_model % rung.n_heads:
        raise ValueError(f"rungs: in {text!r} n_heads = {rung.n_heads} does not divide d_model = {rung.d_model}")
    if rung.length < 4:
        raise ValueError(f"rungs: in {text!r} length is {rung.length}, expected at least 4, a quarter is the prompt")
    if rung.d_model < RANK:
        raise ValueError(f"rungs: in {text!r} d_model is {rung.d_model}, expected at least LoRA's rank {RANK}")
    return rung


def format_rung(rung):
    """The text that `parse_rung` reads."""
    return ",".join(str(number) for number in rung)


def prompt_length(rung):
    """Tokens of a generation's prompt: a quarter of T. The other three quarters are generated."""
    return rung.length // 4


def model_config(rung, work):
    """The model of one rung and kind of work."""
    return ModelConfig(
        vocab_size=rung.vocab_size,
        n_positions=rung.length,
        d_model=rung.d_model,
        n_layers=rung.n_layers,
        n_heads=rung.n_heads,
        d_ff=4 * rung.d_model,
        n_classes=N_CLASSES if work == "classifier" else 0,
    )


def adapter_config(work):
    """The adapter that a kind of work trains, or None."""
    return AdapterConfig(r=RANK, alpha=2.0 * RANK, targets=TARGETS[work]) if work in TARGETS else None


# ---------------------------------------------------------------- floating-point operations


def flops(rung, work):
    """Floating-point operations of the matrix products that a unit of work needs; see `step_flops`.

    What a side computes twice to save memory is not counted twice.
    """
    if work in GENERATED_ROWS:
        return generation_flops(rung, GENERATED_ROWS[work])
    wanted = () if work == "forward" else None
    return sum(step_flops(model_config(rung, work), rung.batch, rung.length, adapter_config(work), wanted).values())


def generation_flops(rung, rows):
    """The prompt at once, then a token at a time against the keys and values that are kept.

    Only the last position of each pass goes through the head; the last token made is not read again.
    """
    prompt, made = prompt_length(rung), rung.length - prompt_length(rung)
    shapes = parameter_shapes(model_config(rung, "generate_1"))
    linear = sum(2 * prod(shape) for name, shape in shapes.items() if name.startswith("blocks.") and len(shape) == 2)
    attention = 4 * rung.d_model * rung.n_layers  # of one query and one key: a score, and its share of the values
    pairs = prompt**2 + sum(range(prompt + 1, prompt + made))
    head = 2 * rung.d_model * rung.vocab_size
    return rows * (linear * (prompt + made - 1) + attention * pairs + head * made)
