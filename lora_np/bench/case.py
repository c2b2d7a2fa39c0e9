"""Define what is timed: model sizes, kinds of work, and the weights, adapter and batch for each combination.

Each backend's process draws the case itself, but from the same seed, so all backends use the same values.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from subprocess import Popen
from typing import NamedTuple

import numpy as np

from ..adapters import Adapter, AdapterConfig, init_adapter, linear_layers
from ..analysis import step_bytes, step_flops
from ..checked import errors_of, whole_number
from ..compress import quantise
from ..data import Batch
from ..model import BertConfig, Decoder, GPT2Config, LlamaConfig, empty_cache, parameter_shapes
from ..model.decoder import with_room

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.01  # applies only to matrices, as in lora_np's AdamW


class Rung(NamedTuple):
    """The sizes of a model and its batch (six for a GPT-2, eight for a Llama or BERT), and the adapter's rank."""

    d_model: int  # C; for GPT-2, the width of the MLP is F = 4 C
    n_layers: int
    n_heads: int
    length: int  # T, tokens per row; in generation, a quarter of them are the prompt
    batch: int  # B, rows
    vocab_size: int  # V
    n_kv_heads: int = 0  # K, only for a Llama; its head size is C / n_heads
    d_ff: int = 0  # F, only for a Llama or BERT
    rank: int = 0  # the adapter's r; 0 means the default for the kind of work


RUNGS = (
    Rung(64, 2, 4, 64, 32, 2048),
    Rung(128, 4, 4, 64, 32, 4096),
    Rung(256, 4, 8, 64, 32, 4096),
    Rung(512, 6, 8, 128, 8, 8192),
    Rung(768, 2, 12, 128, 8, 8192),
)
NAMED = {
    "smollm2": Rung(576, 30, 9, 34, 16, 49152, 3, 1536),  # SmolLM2-135M
    "minilm": Rung(384, 6, 12, 34, 16, 30522, 0, 1536),  # all-MiniLM-L6-v2
}
ROPE_THETA = 100000.0  # SmolLM2's θ
BLOCK = 32  # the number of weights in a block of Q4_1

WORKS = {
    "full": "a full training step: forward, backward, AdamW",
    "lora_qv": "a LoRA step on q and v, r = 8 or the rung's rank",
    "lora_all": "a LoRA step on every linear layer, r = 8 or the rung's rank",
    "classifier": "a full training step of a classifier on padded rows",
    "forward": "logits and loss, no gradients",
    "generate_1": "greedy generation of one row, with a key-value cache",
    "generate_8": "greedy generation of eight rows, with a key-value cache",
    "classifier_qv": "a LoRA step of a classifier on q and v, r = 8 or the rung's rank",
    "classifier_all": "a LoRA step of a classifier on every linear layer, r = 4 or the rung's rank",
}
DEFAULT_WORKS = tuple(WORKS)[:-2]  # the kinds of work in figures/bench.md's tables for GPT-2
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
    """Parse the text form of a rung, which gives the sizes of a benchmark case.

    The text is a list of all sizes, such as "64,2,4,64,32,2048"; the width of a rung in RUNGS, such as "64"; or the
    name "smollm2" or "minilm", optionally followed by B and T, as in "smollm2,64,34". The text may end with a comma,
    the letter r and the adapter's rank, as in "64,r16" or "smollm2,64,34,r16". Eight sizes are those of a Llama or, if
    the number of key/value heads is 0, of BERT.

    Raises
    ------
    ValueError
        If the text has any other form; the message shows the expected forms.
    """
    named = {str(rung.d_model): rung for rung in RUNGS} | NAMED
    shapes, has_rank, rank = text.partition(",r")
    name, _, sizes = shapes.partition(",")
    try:
        if shapes in named:
            rung = named[shapes]
        elif name in NAMED:
            batch, length = map(int, sizes.split(","))
            rung = NAMED[name]._replace(batch=batch, length=length)
        else:
            numbers = list(map(int, shapes.split(",")))
            rung = Rung(*numbers)
            if len(numbers) not in (6, 8) or min(numbers[7:], default=1) < 1:
                raise ValueError
        rung = rung._replace(rank=int(rank) if has_rank else 0)
        if min(rung[:6]) < 1 or min(rung) < 0:
            raise ValueError
    except (ValueError, TypeError):
        gpt2, llama = ",".join(Rung._fields[:6]), ",".join(Rung._fields[6:8])
        whole = f"six integers of at least 1 ({gpt2}), or eight for a Llama or BERT (also {llama}; BERT: n_kv_heads 0)"
        short = ", ".join([*named, *(f"{name},batch,length" for name in NAMED)])
        raise ValueError(
            f"rungs: got {text!r}, expected one of {short}, or {whole}; optionally followed by ,r and a rank"
        ) from None
    with errors_of(f"rungs: got {text!r}"):
        whole_number("length", rung.length, least=4)  # a quarter of it is the prompt
        if rung.d_model % rung.n_heads:
            raise ValueError(f"n_heads: {rung.n_heads} does not divide d_model = {rung.d_model}")
        if rung.n_kv_heads and (rung.d_model % BLOCK or rung.d_ff % BLOCK):
            raise ValueError(f"d_model, d_ff: expected multiples of {BLOCK}, the block size of Q4_1")
        flops(rung, "classifier_qv" if is_bert(rung) else "lora_all")  # checks all other sizes
    return rung


def rung_numbers(rung):
    """Return a rung's fields up to the last nonzero one; older checkouts accept only the first six or eight fields."""
    return list(rung[: max(i for i, number in enumerate(rung, 1) if number)])


def format_rung(rung):
    """Format a rung as the text that `parse_rung` reads."""
    rung = Rung(*rung)
    return ",".join([*map(str, rung_numbers(rung._replace(rank=0))), *([f"r{rung.rank}"] if rung.rank else [])])


def is_bert(rung):
    """Return whether a rung's sizes are those of BERT."""
    return rung.d_ff > 0 and rung.n_kv_heads == 0


def model_config(rung, work):
    """Return the model's configuration for a rung and a kind of work."""
    C, layers, H, T, _, V, K, F, _ = rung
    n_classes = N_CLASSES if is_bert(rung) or work.startswith("classifier") else 0
    if is_bert(rung):
        if work != "forward" and not work.startswith("classifier"):
            raise ValueError(f"work: got {work!r}, which is for language models, but this rung is an encoder")
        return BertConfig(V, T, C, layers, H, F, pooling="cls", n_classes=n_classes)  # as in transformers' classifier
    if K:
        return LlamaConfig(V, T, C, layers, H, K, C // H, F, n_classes, rope_theta=ROPE_THETA)
    return GPT2Config(V, T, C, layers, H, d_ff=4 * C, n_classes=n_classes)


def adapter_config(rung, work):
    """Return the adapter's configuration for a rung and a kind of work, or None."""
    config = ADAPTERS.get(work)
    return replace(config, r=rung.rank, alpha=2.0 * rung.rank) if config and rung.rank else config


def tokens(rung, work):
    """Return the number of tokens in a timed step, including padding; for generation, the number of new tokens."""
    if work in GENERATED_ROWS:
        return GENERATED_ROWS[work] * (rung.length - rung.length // 4)
    return rung.batch * rung.length


def flops(rung, work):
    """Return the number of floating-point operations in the matrix products of a timed step; see `step_flops`.

    Products that are recomputed to save memory are counted only once. Generation takes one forward pass over the prompt
    and then one for each new token except the last, with cached keys and values. The head is applied only to the last
    position of each pass.
    """
    config = model_config(rung, work)
    if work not in GENERATED_ROWS:
        wanted = () if work == "forward" else None
        return sum(step_flops(config, rung.batch, rung.length, adapter_config(rung, work), wanted).values())
    terms = step_flops(config, 1, 1, wanted=())  # for one token that attends only to itself
    head = terms.pop("head.forward")
    pair = sum(terms[name] for name in terms if name.endswith("context.forward"))  # for one query and one key
    linear = sum(terms.values()) - pair
    T, prompt = rung.length, rung.length // 4
    pairs = prompt**2 + sum(range(prompt + 1, T))
    return GENERATED_ROWS[work] * (linear * (T - 1) + pair * pairs + head * (T - prompt))


def counted_bytes(rung, work):
    """Return the sizes of the arrays in a timed step, in bytes, as a dict with the fields of `StepBytes`.

    For generation, the activations are the cached keys and values.
    """
    config = model_config(rung, work)
    if work in GENERATED_ROWS:
        sizes = step_bytes(config, 1, 1, wanted=())
        past = empty_cache(Decoder(config, np.float32, layers={}), GENERATED_ROWS[work])
        of_a_token = with_room(past, 1, 1)
        activations = rung.length * (of_a_token.keys.nbytes + of_a_token.values.nbytes)
    else:
        wanted = () if work == "forward" else None
        sizes = step_bytes(config, rung.batch, rung.length, adapter_config(rung, work), wanted)
        activations = sum(sizes.activations.values())
    return sizes._replace(activations=activations)._asdict()


# ---------------------------------------------------------------- the arrays


class Case(NamedTuple):
    """The model, adapter and batch for a rung and a kind of work."""

    config: GPT2Config | LlamaConfig | BertConfig
    params: dict[str, np.ndarray]  # a Llama's matrices are quantised in blocks, see `in_blocks`
    adapter: Adapter | None
    batch: Batch  # in generation, `ids` are the prompts, and the targets are unused
    trained: tuple[str, ...]  # names of the parameters that a step trains
    n_new: int  # tokens to generate

    @property
    def arrays(self):
        """The arrays of the model and its adapter in one dict."""
        return {**self.params, **(self.adapter.weights if self.adapter else {})}

    def dense(self):
        """Return the same case with dense arrays instead of quantised blocks."""
        return self._replace(params={name: np.asarray(weight) for name, weight in self.params.items()})


class Backend(NamedTuple):
    """An implementation of one kind of work on a case.

    check() returns the loss and a dict of arrays: the gradients of a training step, named as in lora_np, the "logits"
    of a forward pass, or the "tokens" of a generation (with a loss of 0). check() does not change the backend's state.
    step() does the work once; its calls are timed. A training step returns the loss as a float.
    """

    check: Callable[[], tuple[float, dict[str, np.ndarray]]]
    step: Callable
    process: Popen | None = None  # the process that does the work, or None if the worker does it


def make_case(rung, work, seed=0):
    """Draw the Case for a rung and a kind of work."""
    weights_rng, batch_rng, adapter_rng = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(3))
    config = model_config(rung, work)
    params, adapter = draw_params(config, weights_rng), None
    if isinstance(config, LlamaConfig):
        params = in_blocks(params)
    trained = tuple(params) if work in ("full", "classifier") else ()
    if work in ADAPTERS:
        adapter = init_adapter(params, adapter_config(rung, work), adapter_rng)
        trained = tuple(adapter.weights)
        for name, array in adapter.weights.items():
            if name.endswith("lora_B"):
                adapter.weights[name] = adapter_rng.normal(0.0, 0.1, array.shape).astype(array.dtype)
    batch = draw_batch(rung, work, batch_rng)
    n_new = rung.length - batch.ids.shape[1]  # 0 except in generation
    return Case(config, params, adapter, batch, trained, n_new)


def draw_params(config, rng):
    """Draw random weights of the same magnitude as a trained model's; no array is constant.

    The small values of an untrained model would hide mistakes: for activations near 0.1, the exact GELU and its tanh
    approximation agree in all relevant digits.
    """
    params = {}
    for name, shape in parameter_shapes(config).items():
        if len(shape) == 2:
            value = rng.normal(0.0, 1.0 / math.sqrt(shape[1]), shape)  # keeps the magnitude of the inputs
        else:
            value = rng.normal(float(name.endswith(".weight")), 0.1, shape)
        params[name] = value.astype(np.float32)
    return params


def in_blocks(params):
    """Quantise a Llama's weights to the formats in SmolLM2's file: the embedding to Q8_0, the linear layers to Q4_1.

    All backends use the quantised values, even those that store dense arrays, so their results can be compared.
    """
    layers = [f"{layer}.weight" for layer in linear_layers(params)]
    return quantise(quantise(params, layers, "q4_1"), ["tok_emb.weight"], "q8_0")


def draw_batch(rung, work, rng):
    """Draw a batch of random tokens; only the rows for full fine-tuning of a classifier are padded (on the right)."""
    B, T = rung.batch, rung.length
    if work in GENERATED_ROWS:
        B, T = GENERATED_ROWS[work], T // 4
    ids = rng.integers(0, rung.vocab_size, (B, T))
    lengths = np.full(B, T)
    targets = rng.integers(0, rung.vocab_size, (B, T))
    if work == "classifier":
        # Real batches group rows of similar length, so no row here is shorter than half of the longest one.
        lengths[1:] = rng.integers(T // 2, T + 1, B - 1)
        ids[np.arange(T) >= lengths[:, None]] = 0
    if work.startswith("classifier") or is_bert(rung):
        targets = rng.integers(0, N_CLASSES, B)
    return Batch(ids, targets, lengths, np.arange(B))
