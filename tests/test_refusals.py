"""Bad arguments of the core rooms are refused: the error names the argument, what came and what was expected."""

import math
import re
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest

from lora_np.adapters import (
    AdapterConfig,
    adalora,
    compress,
    init_adapter,
    merge,
    mix,
    on_given_base,
    start_adapter,
    variant_config,
)
from lora_np.analysis import step_bytes, step_flops
from lora_np.model import (
    Sampling,
    add_head,
    empty_past,
    forward,
    generate,
    initial_params,
    make_decoder,
    next_logits,
    next_probabilities,
)
from lora_np.training import AdamW, RankAllocation, TrainConfig, allocating, evaluate, learning_rate_at, stream

from .tiny import random_adapter, random_params, tiny_config

LANGUAGE, CLASSIFIER = tiny_config(), tiny_config(n_classes=4)
QUANTISABLE = random_params(tiny_config(d_model=16, n_heads=2))  # 64 weights make a block of NF4
PARAMS, CLASSES = random_params(LANGUAGE), random_params(CLASSIFIER)
HEADLESS = {name: array for name, array in CLASSES.items() if name != "head.weight"}
SHALLOW = {name: array for name, array in PARAMS.items() if not name.startswith("blocks.1.")}
BROKEN = {**PARAMS, "ln_f.weight": np.full(12, np.nan)}
ADAPTER, OF_CLASSES = random_adapter(PARAMS), random_adapter(CLASSES)
OF_Q = random_adapter(PARAMS, targets=("q_proj",))
OF_THREE_BLOCKS = random_adapter(random_params(replace(LANGUAGE, n_layers=3)))
PROMPTS = np.array([[3, 1, 4], [1, 5, 9], [2, 6, 5]])


def with_weights(adapter, **changes):
    """The adapter with other arrays; None: without this one."""
    weights = {name: array for name, array in {**adapter.weights, **changes}.items() if array is not None}
    return adapter._replace(weights=weights)


def rng():
    return np.random.default_rng(0)


def adapt(params=PARAMS, **settings):
    return init_adapter(params, AdapterConfig(**settings), rng())


def start(**settings):
    return start_adapter(QUANTISABLE, AdapterConfig(**settings), rng())


def there_and_back(**settings):
    _, fresh = start(**settings)
    return on_given_base(QUANTISABLE, fresh, fresh)


def run(params=PARAMS, ids=PROMPTS[:2], config=LANGUAGE, **options):
    return forward(params, ids, config, **options)


def classify(params=CLASSES, lengths=(3, 2), **options):
    return run(params, config=CLASSIFIER, lengths=np.array(lengths), **options)


def write(params=PARAMS, ids=PROMPTS, n_new=4, config=LANGUAGE, **options):
    return generate(params, ids, config, n_new, **options)


def read_on(ids):
    """Read further tokens after three rows of three."""
    decoder = make_decoder(PARAMS, LANGUAGE)
    return next_logits(decoder, ids, next_logits(decoder, PROMPTS, empty_past(decoder, 3))[1])


def blend(**weights):
    return mix(PARAMS, {"a": ADAPTER, "b": OF_Q}, weights)


# ------------------------------------------------------------------ numbers of configurations

CONFIGURATIONS = [LANGUAGE, AdapterConfig(), RankAllocation(), Sampling(top_k=2, top_p=0.5)]
CONFIGURATIONS += [TrainConfig(40, 0.1), AdamW()]
MAY_BE_NEGATIVE = ("alpha", "final_share")
NUMBERS = [
    (made, field.name, type(getattr(made, field.name)))
    for made in CONFIGURATIONS
    for field in fields(made)
    if type(getattr(made, field.name)) in (int, float)
]


@pytest.mark.parametrize("made, name, number", NUMBERS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_number_of_a_configuration_has_to_be_one(made, name, number):
    no_numbers = [True, "4", [1], math.nan, math.inf]
    no_numbers += [0] if number is int and getattr(made, name) else []
    no_numbers += [-3, 2.0, np.float64(2)] if number is int else [] if name in MAY_BE_NEGATIVE else [-0.1]
    for value in no_numbers:
        with pytest.raises(ValueError, match=f"^{name}: got {re.escape(repr(value))}, expected "):
            replace(made, **{name: value})


# ------------------------------------------------------------------ the table


def rows(call, refused, error=ValueError):
    """(call, its arguments, the error, what it says) of a dict: what it says -> arguments."""
    return [(call, arguments, error, message) for message, arguments in refused.items()]


def each(message, argument, *values):
    """Such a dict for several values of one argument, which the message names as {}."""
    return {message.format(repr(value)): {argument: value} for value in values}


WHOLE = "expected a whole number of at least 1"
A, HEAD = "blocks.0.attn.q_proj.lora_A", "head.weight"
CONFIGURED = {
    **{
        f"rank_pattern['q_proj']: got {r!r}, {WHOLE}": {"rank_pattern": {"q_proj": r}}
        for r in (0, True, 2.0, "2", None)
    },
    **{
        f"alpha_pattern['q_proj']: got {a!r}": {"alpha_pattern": {"q_proj": a}}
        for a in (math.nan, math.inf, "16", None)
    },
    **each(f"r: got {{}}, {WHOLE}", "r", 0, None),
    "alpha: got None, expected a finite number": {"alpha": None},
    "dropout: got 1.0, expected 0 ≤ dropout < 1": {"dropout": 1.0},
    "init: got 'zeros', expected one of kaiming, gaussian": {"init": "zeros"},
    "targets: got none": {"targets": [], "train_head": False},
    "targets: got the text 'q_proj', expected a tuple": {"targets": "q_proj"},
}
NO_LAYERS = ["proj", "attn", "blocks.1", "_proj", "Q_PROJ", "x_proj", "blocks.2.attn.q_proj", "ln1", "tok_emb", "head"]
ADAPTED = {
    "kind: got 'magic', expected one of lora": {"kind": "magic"},
    # A name is no piece of a name, nor that of something that is no linear layer.
    **{f"targets: {t!r} fits no layer; expected one of q_proj, ": {"targets": ["q_proj", t]} for t in (*NO_LAYERS, "")},
    "targets: 'blocks.2.*' fits no layer": {"params": CLASSES, "targets": ["q_proj", "blocks.2.*"]},
    "rank_pattern: 'blocks.7.*' fits no layer": {"rank_pattern": {"q_proj": 2, "blocks.7.*": 3}},
    "alpha_pattern: 'blocks.7.*' fits no layer": {"alpha_pattern": {"q_proj": 2, "blocks.7.*": 3}},
    "o_proj: r: got 13, expected at most min(out, in) = 12": {"r": 13, "targets": ["o_proj"]},
    "down_proj: r: got 13, expected at most min(out, in) = 12": {"r": 13, "targets": ["down_proj"]},  # (12, 20)
    "blocks.1.attn.q_proj: r: got 13, expected at most": {"r": 2, "rank_pattern": {"blocks.1.*": 13}},
    **{
        f"init: {i!r} takes the adapter out of the base; start_adapter": {"init": i}
        for i in ("pissa", "olora", "loftq")
    },
}
STARTED = {
    "init: 'pissa' goes with kinds lora and dora, got 'vera'": {"kind": "vera", "init": "pissa"},
    "init: 'olora' goes with kinds lora and dora, got 'adalora'": {"kind": "adalora", "init": "olora"},
    "kind: got 'none', expected one of lora": {"kind": "none", "init": "olora"},
    "alpha: got 0.0, expected more than 0 for init 'pissa'": {"alpha": 0.0, "init": "pissa"},
    "alpha: got -1.0, expected more than 0 for init 'loftq'": {"alpha": -1.0, "init": "loftq"},
    "blocks.0.attn.q_proj: r: got 17, expected at most": {"r": 17, "init": "pissa"},
    "rate_factors: lora has no 'lora_C', expected some of lora_A, lora_B, w": {"rate_factors": {"lora_C": 2.0}},
    "rate_factors: vera has no 'lora_A', expected some of v": {"rate_factors": {"lora_A": 2.0}, "kind": "vera"},
    "rate_factors: vera has no 'lora_B'": {"rate_factors": {"lora_B": 2.0}, "kind": "vera", "init": "pissa"},
}
NO_WAY_BACK = {  # what quantising changed is no adapter, and DoRA's way back no mix
    "trained: got init 'loftq', which works only with the quantised base": {"r": 4, "init": "loftq"},
    "'trained' is of kind 'dora', expected 'lora'": {"r": 3, "kind": "dora", "init": "pissa"},
}
ALLOCATED = {
    "target: got 0.0, expected 0 < target ≤ 1": {"target": 0.0},
    "target: got 1.5": {"target": 1.5},
    "every: got 0.0": {"every": 0.0},
    "first: got -0.1, expected 0 ≤ first < 1": {"first": -0.1},
    "last: got 1.0": {"last": 1.0},
    "first, last: got 0.6 and 0.5, expected at most 1 together": {"first": 0.6, "last": 0.5},
    "beta1: got 1.0, expected 0 ≤ beta1 < 1": {"beta1": 1.0},
    "orthogonality: got -1.0, expected a number of at least 0": {"orthogonality": -1.0},
}
FROZEN = {f"rate_factors: got 0 for '{leaf}', but the allocation": {"leaf": leaf} for leaf in adalora.NAMES}
MIXED = {
    "weights: got a; expected one for each of a, b": {"a": 1.0},
    "weights: got a, b, c; expected one for each of a, b": {"a": 1.0, "b": 1.0, "c": 1.0},
    "weights['b']: got inf, expected a finite number": {"a": 1.0, "b": math.inf},
    "weights['b']: got '1', expected a finite number": {"a": 1.0, "b": "1"},
    "adapters: 'a' has blocks.0.attn.k_proj, but 'b' does not": {"a": 1.0, "b": 1.0},
}
FORWARD = {
    "ids: a sequence of 8 tokens is longer": {"ids": np.zeros((2, 8), dtype=int)},
    **{f"ids: {i} is outside the table of 13 rows": {"ids": np.array([[0, 0, 0], [0, i, 0]])} for i in (13, -1, 1000)},
    **{f"ids: got shape {s}": {"ids": np.zeros(s, dtype=int)} for s in ((5,), (2, 0), (1, 2, 5))},
    **{
        f"wanted: no parameter is named {n!r}": {"wanted": (n,)}
        for n in ("blocks.2.ln1.weight", "blocks.0.ln1.lora_A", A)
    },
    "wanted: no parameter is named 't'": {"wanted": "tok_emb.weight"},
    # To leave out the adapter of a block that is not there would be another model.
    "adapter: the model has no layer blocks.2.attn.q_proj": {"adapter": OF_THREE_BLOCKS},
}
NO_IDS = {"ids: got float64, expected an array of integers": {"ids": np.zeros((2, 3))}, "ids": {"ids": [[1, 2, 3]]}}
ROWS = {
    "adapter: got 3 for 2 rows, expected one Adapter, or one for each row": {"adapter": [None] * 3},
    "rows with adapters of their own are for evaluation": {"adapter": [ADAPTER, None], "wanted": ("tok_emb.weight",)},
    "adapter: carries blocks.0.ln1.bias, which all rows share": {
        "adapter": [with_weights(ADAPTER, **{"blocks.0.ln1.bias": np.zeros(12)}), None]
    },
}
HEADS = {
    "head.weight": {"params": HEADLESS},
    "head.weight is missing": {"params": HEADLESS, "adapter": [OF_CLASSES, None]},
    "shape (2, 12), expected (n_classes, d_model) = (4, 12)": {
        "params": HEADLESS, "adapter": [OF_CLASSES, with_weights(OF_CLASSES, **{HEAD: np.zeros((2, 12))})]
    },
    # Over all positions of a classifier's last block, which works at one, this mask would fit and mean another.
    "mask: got shape (2, 3, 12), expected x's (2, 1, 12)": {"masks": {"blocks.1.attn": np.ones((2, 3, 12))}},
}  # fmt: skip
LENGTHS = [[0, 3], [3, 4], [3, -1], [3], [3, 3, 3], [[3, 3]]]
MODEL = {
    **{f"{size}: got None, {WHOLE}": {size: None} for size in ("vocab_size", "n_positions", "d_model", "d_ff")},
    **each(f"n_layers: got {{}}, {WHOLE}", "n_layers", 0, None),
    "n_heads: 5 does not divide d_model = 12": {"n_heads": 5},
    "n_classes: got 1, expected 0 (language model) or at least 2": {"n_classes": 1},
    "dropout: got 1.0, expected 0 ≤ dropout < 1": {"dropout": 1.0},
}
GENERATED = {
    **each(f"n_new: got {{}}, {WHOLE}", "n_new", 0, 2.0),
    "n_new: 3 tokens and 5 new ones are more than n_positions = 7": {"n_new": 5},
    "ids: 13 is outside the table of 13 rows": {"ids": np.array([[13]])},
    "ids: got shape (2,)": {"ids": np.array([1, 2])},
    "expected a language model": {"params": CLASSES, "config": CLASSIFIER},
    **{f"rng: got {g}, expected a np.random.Generator": {"sampling": Sampling(), "rng": g} for g in (None, 0)},
    "stop: got [99], expected ids from 0 to 12": {"stop": 99},
    "stop: got [13], expected ids from 0 to 12": {"stop": (13,)},
    "stop: got ['a']": {"stop": ("a",)},
    "adapter: got 2 for 3 rows": {"adapter": [ADAPTER, None]},
    "adapter: the model has no layer blocks.1": {"params": SHALLOW, "adapter": ADAPTER},
}
NO_ADAPTERS = {
    "adapter: got str, expected an Adapter, None, or a list of them": {"adapter": "critics"},
    "adapter: got int": {"adapter": 5},
}
READ = {
    "ids: got 2 rows, expected 3 as in the past": {"ids": PROMPTS[:2]},
    "ids: 3 tokens and 5 more are more than n_positions = 7": {"ids": PROMPTS[:, [0, 1, 2, 0, 1]]},
    "ids: got shape (3, 0)": {"ids": PROMPTS[:, :0]},
    "ids: got shape (3,)": {"ids": PROMPTS[0]},
}
SAMPLED = {
    "temperature: got -0.1, expected a number of at least 0": {"temperature": -0.1},
    **each(f"top_k: got {{}}, {WHOLE}, or None", "top_k", 0, 2.5),
    "top_p: got 0.0, expected a number above 0": {"top_p": 0.0},
    "top_p: got 1.1, expected a number above 0 and at most 1": {"top_p": 1.1},
    "repetition_penalty: got 0, expected a number above 0": {"repetition_penalty": 0},
}
HUGE = {"logits": np.float32([[2.0]]), "ids": np.array([[0]]), "sampling": Sampling(repetition_penalty=1e-40)}
STEP = {"B": 2, "T": 5}
SCHEDULES = "schedule: got 'step', expected one of constant, linear, cosine"
TRAINED = {
    **each("select_from: got {}, expected at most steps = 40", "select_from", 41),
    **each("learning_rate: got {}, expected a number above 0", "learning_rate", 0.0, None),
    "learning_rate: got 1000": {"learning_rate": 10**400},  # no float can hold it
    "clip_norm: got 0.0, expected a number above 0": {"clip_norm": 0.0},
    "select: got 'f1', expected one of loss, accuracy": {"select": "f1"},
    SCHEDULES: {"schedule": "step"},
}
OPTIMISED = {
    "beta1: got 1.0, expected 0 ≤ beta1 < 1": {"beta1": 1.0},
    "beta2: got 1.0, expected 0 ≤ beta2 < 1": {"beta2": 1.0},
    "eps: got 0.0, expected a number above 0": {"eps": 0.0},
}
SEEDS = each("seed: got {}, expected a whole number of at least 0", "seed", -1, 1.5, "0", None, True)
COUNTED = {
    f"B: got 0, {WHOLE}": {**STEP, "B": 0},
    "T: got 1.5": {**STEP, "T": 1.5},
    "T: got 8, expected a whole number from 1 to 7, the model's n_positions": {**STEP, "T": 8},
    "wanted: no parameter is named 'blocks.9.ln1.bias'": {**STEP, "wanted": ("blocks.9.ln1.bias",)},
    "targets: 'qkv' fits no layer": {**STEP, "adapter_config": AdapterConfig(targets=("qkv",))},
    "blocks.0.attn.q_proj: r: got 13, expected at most": {**STEP, "adapter_config": AdapterConfig(r=13)},
    "kind: got 'none', expected one of lora": {**STEP, "adapter_config": AdapterConfig(kind="none")},
}

REFUSED = [
    *rows(AdapterConfig, CONFIGURED),
    *rows(adapt, ADAPTED),
    *rows(start, STARTED),
    *rows(there_and_back, NO_WAY_BACK),
    *rows(variant_config, each("variant: got {}, expected one of lora, rslora, lora+, ", "variant", "lora++")),
    *rows(RankAllocation, ALLOCATED),
    *rows(lambda leaf: allocating(None, adapt(kind="adalora", rate_factors={leaf: 0.0}), 10), FROZEN),
    *rows(partial(replace, TrainConfig(40, 0.1)), TRAINED),
    *rows(AdamW, OPTIMISED),
    *rows(partial(learning_rate_at, 0, 10, 1.0), {SCHEDULES: {"schedule": "step"}}),
    *rows(partial(stream, purpose="head"), SEEDS),
    *rows(partial(evaluate, PARAMS, [], LANGUAGE), {"batches: got none": {}}),
    *rows(blend, MIXED),
    *rows(partial(mix, PARAMS), {"adapters: got none": {"adapters": {}, "weights": {}}}),
    *rows(partial(compress, PARAMS, ADAPTER), each(f"r: got {{}}, {WHOLE}", "r", 0, -1, 1.5, True)),
    *[row for call in (run, classify) for row in rows(call, FORWARD) + rows(call, NO_IDS, TypeError)],
    *rows(run, ROWS),
    *rows(run, {"adapter: got str for row 1, expected an Adapter or None": {"adapter": [None, "all"]}}, TypeError),
    *rows(classify, HEADS),
    *[(classify, {"lengths": lengths}, ValueError, "lengths") for lengths in LENGTHS],
    *rows(tiny_config, MODEL),
    *rows(partial(initial_params, LANGUAGE, rng()), {"dtype: got float16, expected float32": {"dtype": np.float16}}),
    *[(partial(add_head, PARAMS, LANGUAGE, rng=rng()), {"n_classes": n}, ValueError, "n_classes") for n in (1, -1, 0)],
    *rows(write, GENERATED),
    *rows(write, NO_ADAPTERS, TypeError),
    *rows(write, {"logits of the next token are not finite": {"params": BROKEN}}, FloatingPointError),
    *rows(read_on, READ),
    *rows(read_on, {"ids: got float64, expected an array of integers": {"ids": PROMPTS.astype(float)}}, TypeError),
    *rows(Sampling, SAMPLED),
    *rows(next_probabilities, {"repetition_penalty=1e-40": HUGE}, FloatingPointError),
    *[row for count in (step_flops, step_bytes) for row in rows(partial(count, LANGUAGE), COUNTED)],
]


@pytest.mark.parametrize("call, arguments, error, message", REFUSED, ids=[row[-1] for row in REFUSED])
def test_a_bad_argument_is_refused_by_name(call, arguments, error, message):
    with pytest.raises(error) as caught:
        call(**arguments)
    assert message in str(caught.value)


# ------------------------------------------------------------------ adapters of another model


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"blocks.0.attn.q_proj.lora_A": np.zeros((3, 11))}, "q_proj.lora_A has shape (3, 11), expected (3, 12)"),
        ({"blocks.0.attn.q_proj.lora_A": np.zeros((2, 12))}, "q_proj.lora_A has shape (2, 12), expected (3, 12)"),
        ({"blocks.1.mlp.up_proj.lora_B": np.zeros((3, 20))}, "up_proj.lora_B has shape (3, 20), expected (20, 3)"),
        ({"blocks.1.mlp.up_proj.lora_B": None}, "up_proj.lora_B has shape none, expected (20, 3)"),
        ({"blocks.7.attn.q_proj.lora_A": np.zeros((3, 12))}, "the model has no layer blocks.7.attn.q_proj"),
        ({"head.weight": np.zeros((2, 12))}, "head.weight has shape (2, 12), expected the base's (4, 12)"),
    ],
)
def test_an_adapter_of_another_base_is_refused_everywhere(changes, message):
    """forward, merge and a set say the same: which array, its shape, and what the base asks for."""
    wrong = with_weights(OF_CLASSES, **changes)
    for use in (
        lambda: classify(adapter=wrong),
        lambda: merge(CLASSES, wrong),
    ):
        with pytest.raises(ValueError, match=f"adapter: .*{re.escape(message)}"):
            use()
