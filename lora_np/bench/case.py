"""What is timed: a ladder of model sizes, kinds of work, and the weights, adapter and batch that a side needs for both.

Each side makes its case in its own process from the same seed, so all sides have the same numbers.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..adapters import Adapter, AdapterConfig, init_adapter, linear_layers
from ..analysis import step_flops
from ..compress import quantise
from ..data import Batch
from ..model import LlamaConfig, ModelConfig, parameter_shapes

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.01  # on matrices, as in lora_np's AdamW


class Rung(NamedTuple):
    """The shapes of one model and its batch: GPT-2's with six numbers, a Llama's with all eight."""

    d_model: int  # C; GPT-2's MLP is F = 4 C wide
    n_layers: int
    n_heads: int
    length: int  # T, tokens in a row; a quarter of them is the prompt of a generation
    batch: int  # B, rows
    vocab_size: int  # V
    n_kv_heads: int = 0  # K, of a Llama, whose head size is C / n_heads
    d_ff: int = 0  # F, of a Llama


RUNGS = (
    Rung(64, 2, 4, 64, 32, 2048),
    Rung(128, 4, 4, 64, 32, 4096),
    Rung(256, 4, 8, 64, 32, 4096),
    Rung(512, 6, 8, 128, 8, 8192),
    Rung(768, 2, 12, 128, 8, 8192),
)
SMOLLM2 = Rung(576, 30, 9, 34, 16, 49152, 3, 1536)  # of SmolLM2-135M
ROPE_THETA = 100000.0  # its θ
BLOCK = 32  # weights of a row in one of Q4_1's blocks

WORKS = {
    "full": "a step of full training: forward, backward, AdamW",
    "lora_qv": "a LoRA step, r = 8 on q and v",
    "lora_all": "a LoRA step, r = 8 on every linear layer",
    "classifier": "a step of a classifier trained in full, on padded rows",
    "forward": "logits and loss, no gradients",
    "generate_1": "greedy generation of one row, with a key-value cache",
    "generate_8": "greedy generation of eight rows, with a key-value cache",
    "classifier_qv": "a LoRA step of a classifier, r = 8 on q and v",
    "classifier_all": "a LoRA step of a classifier, r = 4 on every linear layer",
}
DEFAULT_WORKS = tuple(WORKS)[:-2]  # those of the tables in README.md
RANK = 8
N_CLASSES = 2
ADAPTERS = {
    "lora_qv": AdapterConfig(r=RANK, alpha=2.0 * RANK, targets=("q_proj", "v_proj")),
    "lora_all": AdapterConfig(r=RANK, alpha=2.0 * RANK, targets=("all-linear",)),
    "classifier_qv": AdapterConfig(r=RANK, alpha=2.0 * RANK, targets=("q_proj", "v_proj")),
    "classifier_all": AdapterConfig(r=RANK // 2, alpha=1.0 * RANK, targets=("all-linear",)),
}
GENERATED_ROWS = {"generate_1": 1, "generate_8": 8}


def parse_rung(text):
    """A rung from its text.

    That is all its numbers, "64,2,4,64,32,2048"; or only the width of one in RUNGS, "64"; or "smollm2", also with
    another B and T, "smollm2,64,34".

    Raises
    ------
    ValueError
        For anything else, with what came and what was expected.
    """
    named = {str(rung.d_model): rung for rung in RUNGS} | {"smollm2": SMOLLM2}
    if text in named:
        return named[text]
    gpt2, llama = ",".join(Rung._fields[:6]), ",".join(Rung._fields[6:])
    numbers = text.removeprefix("smollm2,").split(",")
    try:
        numbers = list(map(int, numbers))
        if len(numbers) not in ((2,) if text.startswith("smollm2,") else (6, 8)):
            raise ValueError
    except ValueError:
        one_of, whole = ", ".join(named), f"six whole numbers: {gpt2}, or eight for a Llama: also {llama}"
        raise ValueError(f"rungs: got {text!r}, expected one of {one_of}, smollm2,batch,length, or {whole}") from None
    rung = SMOLLM2._replace(batch=numbers[0], length=numbers[1]) if len(numbers) == 2 else Rung(*numbers)
    C, _, H, T, _, _, K, F = rung
    size = C // max(H, 1)  # of a head
    for holds, expected in (
        (min(numbers) >= 1, f"numbers of at least 1: {gpt2}, and for a Llama {llama}"),
        (C % max(H, 1) == 0, "n_heads to divide d_model"),
        (H % max(K, 1) == 0, "n_kv_heads to divide n_heads"),
        (not K or size % 2 == 0, "an even head size, d_model / n_heads"),
        (not K or C % BLOCK == F % BLOCK == 0, f"d_model and d_ff to be multiples of {BLOCK}, as the blocks of Q4_1"),
        (T >= 4, "length to be at least 4, because a quarter of it is the prompt"),
        (size * (K or H) >= RANK, f"d_model, and the width of all keys, to be at least LoRA's rank {RANK}"),
    ):
        if not holds:
            raise ValueError(f"rungs: got {text!r}, expected {expected}")
    return rung


def rung_numbers(rung):
    """A list of the six numbers of a GPT-2, which is all that older checkouts know, or the eight of a Llama."""
    return [number for number in rung if number]


def format_rung(rung):
    """The text that `parse_rung` reads."""
    return ",".join(map(str, rung_numbers(rung)))


def model_config(rung, work):
    """The model of one rung and kind of work."""
    C, layers, H, T, _, V, K, F = rung
    n_classes = N_CLASSES if work.startswith("classifier") else 0
    if K:
        return LlamaConfig(V, T, C, layers, H, K, C // H, F, n_classes, rope_theta=ROPE_THETA)
    return ModelConfig(V, T, C, layers, H, d_ff=4 * C, n_classes=n_classes)


def flops(rung, work):
    """Floating-point operations of the matrix products in a unit of work; see `step_flops`.

    What a side computes twice to save memory counts once. A generation is the prompt in one pass, then one token a
    pass, with cached keys and values. Only the last position of each pass goes through the head. The last new token is
    not read again.
    """
    config = model_config(rung, work)
    if work not in GENERATED_ROWS:
        wanted = () if work == "forward" else None
        return sum(step_flops(config, rung.batch, rung.length, ADAPTERS.get(work), wanted).values())
    terms = step_flops(config, 1, 1, wanted=())  # of one token that looks at itself alone
    head = terms.pop("head.forward")
    pair = sum(terms[name] for name in terms if name.endswith("context.forward"))  # of one query and one key
    linear = sum(terms.values()) - pair
    T, prompt = rung.length, rung.length // 4
    pairs = prompt**2 + sum(range(prompt + 1, T))
    return GENERATED_ROWS[work] * (linear * (T - 1) + pair * pairs + head * (T - prompt))


# ---------------------------------------------------------------- the numbers


class Case(NamedTuple):
    config: ModelConfig | LlamaConfig
    params: dict[str, np.ndarray]  # a Llama's matrices are blocks, see `in_blocks`
    adapter: Adapter | None
    batch: Batch  # in generation `ids` is the prompt, and the targets are not used
    trained: tuple[str, ...]  # names of the parameters that a step trains; () if it trains none
    n_new: int  # tokens to generate

    @property
    def arrays(self):
        """The arrays of the model and its adapter in one dict."""
        return {**self.params, **(self.adapter.weights if self.adapter else {})}

    def dense(self):
        """The same numbers, all in arrays."""
        return self._replace(params={name: np.asarray(weight) for name, weight in self.params.items()})


class Side(NamedTuple):
    """One implementation, ready to do one kind of work.

    check() -> (loss, dict of arrays): the gradients of a training step under lora_np's names, the "logits"
    of a forward pass, the "tokens" of a generation (whose loss is 0). It changes nothing.
    step(): one unit of work, to be timed. One that trains returns the loss, a float.
    """

    check: Callable[[], tuple[float, dict[str, np.ndarray]]]
    step: Callable
    activation_bytes: int | None = None  # alive between forward and backward, if the side can tell


def make_case(rung, work, seed=0):
    """Draw the case of one rung and kind of work."""
    weights_rng, batch_rng, adapter_rng = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(3))
    config = model_config(rung, work)
    params, adapter = draw_params(config, weights_rng), None
    if isinstance(config, LlamaConfig):
        params = in_blocks(params)
    trained = tuple(params) if work in ("full", "classifier") else ()
    if work in ADAPTERS:
        adapter = init_adapter(params, ADAPTERS[work], adapter_rng)
        trained = tuple(adapter.weights)
        for name, array in adapter.weights.items():
            if name.endswith("lora_B"):
                adapter.weights[name] = adapter_rng.normal(0.0, 0.1, array.shape).astype(array.dtype)
    batch = draw_batch(rung, work, batch_rng)
    n_new = rung.length - batch.ids.shape[1]  # 0 except in generation
    return Case(config, params, adapter, batch, trained, n_new)


def draw_params(config, rng):
    """Random weights as large as a trained model's; none is constant.

    The small numbers of a fresh model hide mistakes: GELU by tanh and by the error function agree to all relevant
    digits on activations of 0.1.
    """
    params = {}
    for name, shape in parameter_shapes(config).items():
        if len(shape) == 2:
            value = rng.normal(0.0, 1.0 / math.sqrt(shape[1]), shape)  # its outputs are as large as its inputs
        else:
            value = rng.normal(float(name.endswith(".weight")), 0.1, shape)
        params[name] = value.astype(np.float32)
    return params


def in_blocks(params):
    """A Llama's weights in the blocks of SmolLM2's file: the embedding in Q8_0, the linear layers in Q4_1.

    All sides compute with what the blocks say, dense or not, so that they can be compared.
    """
    layers = [f"{layer}.weight" for layer in linear_layers(params)]
    return quantise(quantise(params, layers, "q4_1"), ["tok_emb.weight"], "q8_0")


def draw_batch(rung, work, rng):
    """A batch of random tokens in full rows; those of a classifier that is trained in full are right-padded."""
    B, T = rung.batch, rung.length
    if work in GENERATED_ROWS:
        B, T = GENERATED_ROWS[work], T // 4
    ids = rng.integers(0, rung.vocab_size, (B, T))
    lengths = np.full(B, T)
    targets = rng.integers(0, rung.vocab_size, (B, T))
    if work == "classifier":
        # Real batches group rows of similar length, so no row is shorter than half of the longest.
        lengths[1:] = rng.integers(T // 2, T + 1, B - 1)
        ids[np.arange(T) >= lengths[:, None]] = 0
    if work.startswith("classifier"):
        targets = rng.integers(0, N_CLASSES, B)
    return Batch(ids, targets, lengths, np.arange(B))
