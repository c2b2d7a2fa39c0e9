"""What is timed: the rungs of a ladder of model sizes, the kinds of work, and the multiplications that each needs."""

from typing import NamedTuple

from ..adapters import AdapterConfig
from ..analysis import step_flops
from ..model import ModelConfig


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
ADAPTERS = {
    "lora_qv": AdapterConfig(r=RANK, alpha=2.0 * RANK, targets=("q_proj", "v_proj")),
    "lora_all": AdapterConfig(r=RANK, alpha=2.0 * RANK, targets=("all-linear",)),
}
GENERATED_ROWS = {"generate_1": 1, "generate_8": 8}


def parse_rung(text):
    """A rung from its text: all six numbers, "64,2,4,64,32,2048", or only the width of one in RUNGS, "64".

    Raises
    ------
    ValueError
        For anything else, with what came and what was expected.
    """
    fields, widths = ",".join(Rung._fields), {str(rung.d_model): rung for rung in RUNGS}
    if text in widths:
        return widths[text]
    try:
        rung = Rung(*map(int, text.split(",")))
    except (ValueError, TypeError):  # no whole numbers, or not six of them
        one_of = ", ".join(widths)
        raise ValueError(f"rungs: got {text!r}, expected one of {one_of}, or six whole numbers: {fields}") from None
    for holds, expected in (
        (min(rung) >= 1, f"six numbers of at least 1: {fields}"),
        (rung.d_model % max(rung.n_heads, 1) == 0, "n_heads to divide d_model"),
        (rung.length >= 4, "length to be at least 4, because a quarter of it is the prompt"),
        (rung.d_model >= RANK, f"d_model to be at least LoRA's rank {RANK}"),
    ):
        if not holds:
            raise ValueError(f"rungs: got {text!r}, expected {expected}")
    return rung


def format_rung(rung):
    """The text that `parse_rung` reads."""
    return ",".join(str(number) for number in rung)


def prompt_length(rung):
    """Tokens of a generation's prompt: a quarter of T; the rest is generated."""
    return rung.length // 4


def model_config(rung, work):
    """The model of one rung and kind of work."""
    C, layers, heads, T, _, V = rung
    return ModelConfig(V, T, C, layers, heads, d_ff=4 * C, n_classes=N_CLASSES if work == "classifier" else 0)


# ---------------------------------------------------------------- floating-point operations


def flops(rung, work):
    """Floating-point operations of the matrix products in a unit of work; see `step_flops`.

    What a side computes twice to save memory counts once.
    """
    if work in GENERATED_ROWS:
        return generation_flops(rung, GENERATED_ROWS[work])
    wanted = () if work == "forward" else None
    return sum(step_flops(model_config(rung, work), rung.batch, rung.length, ADAPTERS.get(work), wanted).values())


def generation_flops(rung, rows):
    """The prompt in one pass, then one token a pass, with cached keys and values.

    Only the last position of each pass goes through the head. The last new token is not read again.
    """
    terms = step_flops(model_config(rung, "generate_1"), 1, 1, wanted=())  # of one token that looks at itself alone
    head = terms.pop("head.forward")
    pair = sum(terms[name] for name in terms if name.endswith("context.forward"))  # of one query and one key
    linear = sum(terms.values()) - pair
    prompt, made = prompt_length(rung), rung.length - prompt_length(rung)
    pairs = prompt**2 + sum(range(prompt + 1, prompt + made))
    return rows * (linear * (prompt + made - 1) + pair * pairs + head * made)
