"""Bad arguments are refused: the error names the argument, what came and what was expected."""

import math
import re
from dataclasses import fields, replace
from functools import cache, partial

import numpy as np
import pytest

from lora_np import adapters as ad
from lora_np import analysis as an
from lora_np import compress as co
from lora_np import data
from lora_np import model as mo
from lora_np import training as tr
from lora_np.adapters import AdapterConfig
from lora_np.formats import PRETRAINED, load_pretrained
from lora_np.model import Sampling

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
    return ad.init_adapter(params, AdapterConfig(**settings), rng())


def start(**settings):
    return ad.start_adapter(QUANTISABLE, AdapterConfig(**settings), rng())


def there_and_back(**settings):
    _, fresh = start(**settings)
    return ad.for_original_base(QUANTISABLE, fresh, fresh)


def classify_adapted(**changes):
    return classify(adapter=with_weights(OF_CLASSES, **changes))


def merge_adapted(**changes):
    return ad.merge(CLASSES, with_weights(OF_CLASSES, **changes))


def run(params=PARAMS, ids=PROMPTS[:2], config=LANGUAGE, **options):
    return mo.forward(params, ids, config, **options)


def classify(params=CLASSES, lengths=(3, 2), **options):
    return run(params, config=CLASSIFIER, lengths=np.array(lengths), **options)


def write(params=PARAMS, ids=PROMPTS, n_new=4, config=LANGUAGE, **options):
    return mo.generate(params, ids, config, n_new, **options)


def read_on(ids):
    """Read further tokens after three rows of three."""
    decoder = mo.make_decoder(PARAMS, LANGUAGE)
    return mo.next_logits(decoder, ids, mo.next_logits(decoder, PROMPTS, mo.empty_cache(decoder, 3))[1])


def blend(**weights):
    return ad.mix(PARAMS, {"a": ADAPTER, "b": OF_Q}, weights)


@cache
def tokenizer():
    pytest.importorskip("tokenizers")
    return data.load_tokenizer(PRETRAINED / "tokenizer.json")


# ------------------------------------------------------------------ numbers of configurations

CONFIGURATIONS = [LANGUAGE, AdapterConfig(), tr.RankAllocation(), Sampling(top_k=2, top_p=0.5)]
CONFIGURATIONS += [tr.TrainConfig(40, 0.1), tr.AdamW()]
MAY_BE_NEGATIVE, MAY_BE_NONE = ("alpha", "final_share"), ("top_k", "top_p", "clip_norm")
OUTSIDE = {  # of the range of a number, beside what no number may be
    **dict.fromkeys(("dropout", "last", "beta1", "beta2"), [1.0]),
    **dict.fromkeys(("every", "eps", "clip_norm", "repetition_penalty"), [0.0]),
    "n_classes": [1],
    "target": [0.0, 1.5],
    "top_p": [0.0, 1.1],
    "learning_rate": [0.0, 10**400],  # no float can hold it
    "temperature": [10**400],
    "select_from": [41],  # of 40 steps
}
NUMBERS = [
    (made, field.name, type(getattr(made, field.name)))
    for made in CONFIGURATIONS
    for field in fields(made)
    if type(getattr(made, field.name)) in (int, float)
]


@pytest.mark.parametrize("made, name, number", NUMBERS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_number_of_a_configuration_has_to_be_one(made, name, number):
    no_numbers = [True, "4", [1], math.nan, *OUTSIDE.get(name, [])]
    no_numbers += [] if name in MAY_BE_NONE else [None]
    no_numbers += [] if name == "clip_norm" else [math.inf]  # which clips nothing
    no_numbers += [0] if number is int and getattr(made, name) else []
    no_numbers += [-3, 2.0, np.float64(2)] if number is int else [] if name in MAY_BE_NEGATIVE else [-0.1]
    for value in no_numbers:
        with pytest.raises(ValueError, match=f"^{name}: got {re.escape(repr(value))[:20]}.*expected "):
            replace(made, **{name: value})


# ------------------------------------------------------------------ the table


def rows(call, refused, error=ValueError):
    """(call, its arguments, the error, what it says) of a dict: what it says -> arguments."""
    return [(call, arguments, error, message) for message, arguments in refused.items()]


def calls(refused, error=ValueError):
    """The same of a dict: what the error says -> function that raises it."""
    return [(call, {}, error, message) for message, call in refused.items()]


def values(call, argument, *bad, error=ValueError):
    """The same of several values of one argument, which the message shows."""
    return [(call, {argument: value}, error, f"{argument}: got {value!r}") for value in bad]


WHOLE = "expected an integer of at least 1"
A, HEAD, LN, ZEROS = "blocks.0.attn.q_proj.lora_A", "head.weight", "blocks.0.ln1", np.zeros(12)
NO_RANKS, NO_ALPHAS = (0, True, 2.0, "2", None), (math.nan, math.inf, "16", None)
CONFIGURED = {
    **{f"rank_pattern['q_proj']: got {r!r}, {WHOLE}": {"rank_pattern": {"q_proj": r}} for r in NO_RANKS},
    **{f"alpha_pattern['q_proj']: got {a!r}": {"alpha_pattern": {"q_proj": a}} for a in NO_ALPHAS},
    "init: got 'zeros', expected one of kaiming, gaussian": {"init": "zeros"},
    "targets: got none": {"targets": [], "train_head": False},
    "targets: got 'q_proj', expected a tuple": {"targets": "q_proj"},
}
NO_LAYERS = ["proj", "attn", "blocks.1", "_proj", "Q_PROJ", "x_proj", "blocks.2.attn.q_proj", "ln1", "tok_emb"]
NO_LAYERS += ["head", ""]
ADAPTED = {
    "kind: got 'magic', expected one of lora": {"kind": "magic"},
    # A name is no piece of a name, nor that of something that is no linear layer.
    **{f"targets: {t!r} matches no layer; expected one of q_proj, ": {"targets": ["q_proj", t]} for t in NO_LAYERS},
    "targets: 'blocks.2.*' matches no layer": {"params": CLASSES, "targets": ["q_proj", "blocks.2.*"]},
    "rank_pattern: 'blocks.7.*' matches no layer": {"rank_pattern": {"q_proj": 2, "blocks.7.*": 3}},
    "alpha_pattern: 'blocks.7.*' matches no layer": {"alpha_pattern": {"q_proj": 2, "blocks.7.*": 3}},
    "o_proj: r: got 13, expected at most min(out, in) = 12": {"r": 13, "targets": ["o_proj"]},
    "down_proj: r: got 13, expected at most min(out, in) = 12": {"r": 13, "targets": ["down_proj"]},  # (12, 20)
    "blocks.1.attn.q_proj: r: got 13, expected at most": {"r": 2, "rank_pattern": {"blocks.1.*": 13}},
    **{f"init: {i!r} changes the base; use start_adapter": {"init": i} for i in ("pissa", "olora", "loftq")},
}
STARTED = {
    "init: 'pissa' works only with kinds lora and dora, got 'vera'": {"kind": "vera", "init": "pissa"},
    "init: 'olora' works only with kinds lora and dora, got 'adalora'": {"kind": "adalora", "init": "olora"},
    "kind: got 'none', expected one of lora": {"kind": "none", "init": "olora"},
    "alpha: got 0.0, expected a number above 0 for init 'pissa'": {"alpha": 0.0, "init": "pissa"},
    "alpha: got -1.0, expected a number above 0 for init 'loftq'": {"alpha": -1.0, "init": "loftq"},
    "blocks.0.attn.q_proj: r: got 17, expected at most": {"r": 17, "init": "pissa"},
    "rate_factors: lora has no 'lora_C', expected one of lora_A, lora_B, w": {"rate_factors": {"lora_C": 2.0}},
    "rate_factors: vera has no 'lora_A', expected one of v": {"rate_factors": {"lora_A": 2.0}, "kind": "vera"},
    "rate_factors: vera has no 'lora_B'": {"rate_factors": {"lora_B": 2.0}, "kind": "vera", "init": "pissa"},
}
NO_WAY_BACK = {  # what quantising changed is no adapter, and DoRA's way back no mix
    "trained: got init 'loftq', which works only with the quantised base": {"r": 4, "init": "loftq"},
    "'trained' is of kind 'dora', expected 'lora'": {"r": 3, "kind": "dora", "init": "pissa"},
}
FROZEN = {f"rate_factors: got 0 for '{leaf}', but rank allocation": {"leaf": leaf} for leaf in ad.adalora.NAMES}
MIXED = {
    "weights: got a; expected one for each of a, b": {"a": 1.0},
    "weights: got a, b, c; expected one for each of a, b": {"a": 1.0, "b": 1.0, "c": 1.0},
    "weights['b']: got inf, expected a finite number": {"a": 1.0, "b": math.inf},
    "weights['b']: got '1', expected a finite number": {"a": 1.0, "b": "1"},
    "adapters: 'b' lacks blocks.0.attn.k_proj; expected the same layers in all": {"a": 1.0, "b": 1.0},
}
FORWARD = {
    "ids: a sequence of 8 tokens is longer": {"ids": np.zeros((2, 8), dtype=int)},
    **{f"ids: got {i}, expected 0 to 12": {"ids": np.array([[0, 0, 0], [0, i, 0]])} for i in (13, -1, 1000)},
    **{f"ids: got shape {s}": {"ids": np.zeros(s, dtype=int)} for s in ((5,), (2, 0), (1, 2, 5))},
    **{f"wanted: no parameter is named {n!r}": {"wanted": (n,)} for n in ("blocks.2.ln1.weight", f"{LN}.lora_A", A)},
    "wanted: no parameter is named 't'": {"wanted": "tok_emb.weight"},
    # To leave out the adapter of a block that is not there would be another model.
    "adapter: the model has no layer blocks.2.attn.q_proj": {"adapter": OF_THREE_BLOCKS},
}
NO_IDS = {"ids: got float64, expected an array of integers": {"ids": np.zeros((2, 3))}, "ids": {"ids": [[1, 2, 3]]}}
ROWS = {
    "adapter: got a list of 3 for 2 rows, expected an Adapter or a list of 2": {"adapter": [None] * 3},
    "adapter: … only for evaluation": {"adapter": [ADAPTER, None], "wanted": ("tok_emb.weight",)},
    f"adapter: replaces {LN}.bias, which must be": {"adapter": [with_weights(ADAPTER, **{f"{LN}.bias": ZEROS}), None]},
}
HEADS = {
    "head.weight": {"params": HEADLESS},
    "head.weight is missing": {"params": HEADLESS, "adapter": [OF_CLASSES, None]},
    "shape (2, 12), expected (n_classes, d_model) = (4, 12)": {
        "params": HEADLESS, "adapter": [OF_CLASSES, with_weights(OF_CLASSES, **{HEAD: np.zeros((2, 12))})]
    },
    # Over all positions of a classifier's last block, which works at one, this mask would fit and mean another.
    "mask: got shape (2, 3, 12), expected (2, 1, 12), x's shape": {"masks": {"blocks.1.attn": np.ones((2, 3, 12))}},
}  # fmt: skip
OF_ANOTHER_BASE = {  # which array, its shape, and what the base asks for
    "adapter: … q_proj.lora_A has shape (3, 11), expected (3, 12)": {A: np.zeros((3, 11))},
    "adapter: … q_proj.lora_A has shape (2, 12), expected (3, 12)": {A: np.zeros((2, 12))},
    "adapter: … up_proj.lora_B has shape (3, 20), expected (20, 3)": {"blocks.1.mlp.up_proj.lora_B": np.zeros((3, 20))},
    "adapter: … up_proj.lora_B has shape none, expected (20, 3)": {"blocks.1.mlp.up_proj.lora_B": None},
    "adapter: … the model has no layer blocks.7.attn.q_proj": {"blocks.7.attn.q_proj.lora_A": np.zeros((3, 12))},
    "adapter: … head.weight has shape (2, 12), expected the base's (4, 12)": {HEAD: np.zeros((2, 12))},
}
LENGTHS = [[0, 3], [3, 4], [3, -1], [3], [3, 3, 3], [[3, 3]]]
GENERATED = {
    "n_new: 3 tokens … 5 new … n_positions = 7": {"n_new": 5},
    "ids: got 13, expected 0 to 12": {"ids": np.array([[13]])},
    "ids: got shape (2,)": {"ids": np.array([1, 2])},
    "expected a language model": {"params": CLASSES, "config": CLASSIFIER},
    **{f"stop: got [{stop!r}]": {"stop": (stop,)} for stop in (13, -1, "a")},
    "stop: got [99], expected ids from 0 to 12": {"stop": 99},
    "adapter: got a list of 2 for 3 rows": {"adapter": [ADAPTER, None]},
    "adapter: the model has no layer blocks.1": {"params": SHALLOW, "adapter": ADAPTER},
}
NO_ADAPTERS = {
    "adapter: got str, expected an Adapter, None, or a list of them": {"adapter": "critics"},
    "adapter: got int": {"adapter": 5},
}
READ = {
    "ids: got 2 rows, expected 3": {"ids": PROMPTS[:2]},
    "ids: 3 tokens … 5 … n_positions = 7": {"ids": PROMPTS[:, [0, 1, 2, 0, 1]]},
    "ids: got shape (3, 0)": {"ids": PROMPTS[:, :0]},
    "ids: got shape (3,)": {"ids": PROMPTS[0]},
}
HUGE = {"logits": np.float32([[2.0]]), "ids": np.array([[0]]), "sampling": Sampling(repetition_penalty=1e-40)}
STEP = {"B": 2, "T": 5}
SCHEDULES = "schedule: got 'step', expected one of constant, linear, cosine"
TRAINED = {SCHEDULES: {"schedule": "step"}}
COUNTED = {
    f"B: got 0, {WHOLE}": {**STEP, "B": 0},
    "T: got 1.5": {**STEP, "T": 1.5},
    "T: got 8, expected an integer from 1 to 7, the model's n_positions": {**STEP, "T": 8},
    "wanted: no parameter is named 'blocks.9.ln1.bias'": {**STEP, "wanted": ("blocks.9.ln1.bias",)},
    "targets: 'qkv' matches no layer": {**STEP, "adapter_config": AdapterConfig(targets=("qkv",))},
    "blocks.0.attn.q_proj: r: got 13, expected at most": {**STEP, "adapter_config": AdapterConfig(r=13)},
    "kind: got 'none', expected one of lora": {**STEP, "adapter_config": AdapterConfig(kind="none")},
}

STREAM, ONE = np.arange(10), [np.array([0, 5])]
TABLE = data.Table(["a", "b", "c"], ["x", "x", "y"])
DATA = {
    "source: got 'yelp', expected one of imdb, rotten_tomatoes": lambda: data.load_reviews("yelp"),
    f"max_length: got 0, {WHOLE}": lambda: data.encode(tokenizer(), [], 0),
    "ids: got 8000, which is not the id of a token": lambda: data.decode(tokenizer(), [5, 8000]),
    "ids: got shape (1, 2)": lambda: data.decode(tokenizer(), [[5, 6]]),
    "texts: got none": lambda: data.train_tokenizer([]),
    "vocab_size: got 200, expected … at least 258": lambda: data.train_tokenizer(["a film"], 200),
    "sequences: got none": lambda: data.pad_sequences([], 1),
    "sequences: got no tokens in sequence 1": lambda: data.pad_sequences([*ONE, np.array([], dtype=int)], 1),
    "sequence 0: got shape (1, 2)": lambda: data.token_stream([np.array([[0, 5]])]),
    "sequences: got ids from -1 to 5": lambda: data.token_stream([np.array([-1, 5])]),
    "labels: got shape (2,), expected (1,)": lambda: data.class_batches(ONE, [1, 0], 4, 1),
    "batch_size: got 0": lambda: data.class_batches(ONE, [1], 0, 1),
    # Of a stream at the call, not at the first batch:
    f"batch_size: got 0, {WHOLE}": lambda: data.language_batches(STREAM, 0, 4),
    "length: got 0": lambda: data.language_batches(STREAM, 4, 0),
    "stream: got 10 tokens, expected at least 11": lambda: data.language_batches(STREAM, 4, 10, rng()),
    "stream: got 1 tokens, expected at least 2": lambda: data.language_batches(STREAM[:1], 4, 10),
    "stream: got shape (2, 5)": lambda: data.language_batches(STREAM.reshape(2, 5), 4, 2),
    "labels: got 1 class(es), 'pos', expected at least two": lambda: data.label_names(["pos"] * 2),
    "labels: got 'bad' in 1 of 1 rows, expected … 'neg', 'pos'": lambda: data.encode_labels(["bad"], ["neg", "pos"]),
    "text_column and label_column are both 'text'": lambda: data.read_table("a.csv", "text", "text"),
}
THREE = "expected three numbers for train, validation and test"
NO_FRACTIONS = [(0.5, 0.5), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1), (0.5, 0.1, 0.1)]
SPLIT = {
    "3 distinct texts of 2 classes, too few for a test set of 10 %": {"fractions": (0.4, 0.5, 0.1)},
    "table: got 3 texts and 0 labels": {"table": TABLE._replace(labels=[])},
    **{f"{fractions}, {THREE}": {"fractions": fractions} for fractions in NO_FRACTIONS},
}
DATA_OF_ANOTHER_TYPE = {
    "texts: got a str … [text]": lambda: data.encode(tokenizer(), "a film"),
    "text 1: got type int, expected str": lambda: data.encode(tokenizer(), ["a film", 3]),
    "text 0: got type NoneType": lambda: data.normalise(tokenizer(), None),
    "ids: got dtype float64": lambda: data.decode(tokenizer(), [0.5]),
    "texts: got a str": lambda: data.train_tokenizer("a film"),
    "sequence 0: got dtype float64": lambda: data.token_stream([np.array([0.0, 5.0])]),
    "labels: got dtype float64": lambda: data.class_batches(ONE, [1.0], 4, 1),
    "stream: got dtype float64": lambda: data.language_batches(STREAM / 2, 4, 2),
}
NO_FILE = {
    "none.csv … there is no such file": lambda: data.read_table("none.csv", "text", "label"),
    "none.json … there is no such file": lambda: data.load_tokenizer("none.json"),
}

WEIGHT = rng().standard_normal((4, 64)).astype(np.float32)
COMPRESSED = {
    "block_size: got 64 … (4, 33) … divisor of its size, 132": lambda: co.quantise_nf4(WEIGHT[:, :33]),
    "block_size: got 33 … expected an even": lambda: co.quantise_nf4(WEIGHT, 33),
    "block_size: got 0, expected": lambda: co.quantise_nf4(WEIGHT, 0),
    "block_size: got 64.0, expected": lambda: co.quantise_nf4(WEIGHT, 64.0),
    "share: got 1.5, expected 0 ≤ share ≤ 1": lambda: co.prune_magnitude(WEIGHT, 1.5),
    "share: got nan": lambda: co.prune_magnitude(WEIGHT, math.nan),
    "m: got 4 … (4, 62), expected a divisor of 62": lambda: co.prune_n_of_m(WEIGHT[:, :62]),
    "n: got 5, expected an integer from 0 to 4, m": lambda: co.prune_n_of_m(WEIGHT, 5, 4),
    f"m: got 0, {WHOLE}": lambda: co.prune_n_of_m(WEIGHT, 0, 0),
    "names: got 'b', expected names of weights such as 'a'": lambda: co.quantise({"a": WEIGHT}, ["b"]),
    "format: got 'fp4', expected one of nf4, int8": lambda: co.quantise({"a": WEIGHT}, ["a"], "fp4"),
    "b: block_size: got 64": lambda: co.quantise({"a": WEIGHT, "b": WEIGHT[:, 1:]}, ["a", "b"]),
    "quantised: got shape (1, 3), expected (2, 3)": lambda: co.quantisation_error(np.zeros((2, 3)), np.ones((1, 3))),
    "dense: got shape (3, 64), expected (4, 64)": lambda: co.requantise(WEIGHT[:3], like=co.quantise_nf4(WEIGHT)),
}
COMPRESSED_OF_ANOTHER_TYPE = {
    "double: got 8, expected True or False": lambda: co.quantise_nf4(WEIGHT, 64, 8),
    "names: got the string 'a', expected a list": lambda: co.quantise({"a": WEIGHT}, "a"),
    "a: … block_size": lambda: co.quantise({"a": WEIGHT}, ["a"], "int8", block_size=64),
}
COMPRESSIONS = [co.quantise_nf4, co.quantise_int8, partial(co.prune_magnitude, share=0.5), co.prune_n_of_m]
TOO_LARGE = (math.nan, math.inf, -math.inf, 2e38)
NOT_FINITE_WEIGHTS = [np.where(WEIGHT == WEIGHT.max(), bad, WEIGHT.astype(np.float64)) for bad in TOO_LARGE]
NO_MATRICES = [np.zeros(shape) for shape in ((64,), (2, 4, 64), (0, 64))]
OTHER_TYPES = [np.zeros((4, 64), dtype) for dtype in (np.float16, np.int64, np.complex128)]
NO_ARRAYS = [[[1.0, 2.0]], co.quantise_nf4(WEIGHT)]  # quantising twice is a mistake, too
NO_WEIGHTS = [
    (ValueError, "weight: got a magnitude of … expected finite", NOT_FINITE_WEIGHTS),
    (ValueError, "weight: got shape … expected a matrix", NO_MATRICES),
    (TypeError, "weight: got dtype … expected float32 or float64", OTHER_TYPES),
    (TypeError, "weight: got … expected an array", NO_ARRAYS),
]
Q = "blocks.0.attn.q_proj.weight"
MERGED = {
    "masks: got 'blocks.0.attn.k_proj.weight', expected names of adapted": {"masks": {Q.replace("q_", "k_"): None}},
    "masks: … has shape (3, 4)": {"masks": {Q: np.ones((3, 4), bool)}},
    "dtype float64, expected … and bool": {"masks": {Q: np.ones((12, 12))}},
    "adapter: the model has no layer": {"params": {"tok_emb.weight": PARAMS["tok_emb.weight"]}},
    f"{Q}: W … ΔW has values that are not finite": {"adapter": with_weights(OF_Q, **{A: np.full((3, 12), np.nan)})},
}

SIX, FOUR, FIVE = (an.random_directions(n, 3, rng()) for n in (6, 4, 5))  # with three orthonormal columns each
BAD, EYE, SIGMA = np.array([[1.0, np.nan], [0.0, np.inf]]), np.eye(2), np.array([3.0, 2.0, 1.0])
NOT_FINITE = {
    "matrix of singular_values": lambda: an.singular_values(BAD),
    "matrix of truncate": lambda: an.truncate(BAD, 1),
    "matrix": lambda: an.right_directions(BAD, 1),
    "A": lambda: an.product_singular_values(EYE, BAD),
    "update": lambda: an.amplification(EYE, BAD, 1, rng()),
    "base": lambda: an.amplification(BAD, EYE, 1, rng()),
    "before": lambda: an.max_similarities(BAD, EYE, 1),
    "after": lambda: an.max_similarities(EYE, BAD, 1),
    "sigma": lambda: an.effective_rank(np.array([np.nan, 1.0])),
    "gradient": lambda: an.energy_share(BAD, EYE),
}
SHAPES = {
    "matrix: got shape (0, 3), expected at least one entry": lambda: an.spectrum(np.zeros((0, 3))),
    "matrix: got shape (3,), expected a 2-D": lambda: an.spectrum(np.ones(3)),
    "A: got shape (4, 3), expected 2 rows": lambda: an.product_singular_values(EYE, FOUR),
    "V: got 2 rows, expected 6": lambda: an.similarity_table(SIX, EYE),
    "update: got shape (5, 3), expected (4, 3)": lambda: an.amplification(FOUR, FIVE, 1, rng()),
    "after: got shape (5, 3), expected (4, 3)": lambda: an.max_similarities(FOUR, FIVE, 1),
    "after['a']: got shape (1, 3), expected": lambda: an.weight_updates({"a": EYE}, {"a": SIGMA[None]}),
    "directions: got 4 rows, expected 3": lambda: an.energy_share(FOUR, FOUR),
    "sigma: got shape (2, 2), expected singular values": lambda: an.stable_rank(EYE),
    "sigma: got shape (0,), expected at least one": lambda: an.rank_at_energy(SIGMA[:0], 0.5),
}
SUBSPACES = {
    "matrix: got a zero matrix": lambda: an.right_directions(0 * FOUR, 1),
    "B A: got a zero matrix": lambda: an.product_right_directions(0 * EYE, np.ones((2, 5)), 1),
    "k: got 4, … the dimension n": lambda: an.random_directions(3, 4, rng()),
    "j: got 7, … from 1 to 6": lambda: an.gaussian_similarity(6, 1, 7),
    "V: its columns are not orthonormal": lambda: an.similarity_table(SIX, 1.01 * SIX),
    "i: got 4, expected an integer from 1 to 3, the columns of U": lambda: an.subspace_similarity(SIX, SIX, 4, 1),
    "j: got 1.0, ": lambda: an.subspace_similarity(SIX, SIX, 1, 1.0),
    "update: got a zero matrix": lambda: an.amplification(FOUR, 0 * FOUR, 1, rng()),
    "r: got 0, expected an integer from 1 to 3": lambda: an.amplification(FOUR, FOUR, 0, rng()),
    "r: got 4, expected an integer from 1 to 3": lambda: an.amplification(FOUR, FOUR, 4, rng()),
    "r: got True, ": lambda: an.amplification(FOUR, FOUR, True, rng()),
    "r: got 2, … from 1 to 1, the rank of update": lambda: an.amplification(FOUR, FOUR * [1, 0, 0], 2, rng()),
    "before: got a zero matrix": lambda: an.intruder_dimensions(0 * FOUR, FOUR, 1),
    "k: got 10, … from 1 to 3, the rank of after": lambda: an.intruder_dimensions(FOUR, FOUR),
    "directions: its 2 columns span 1": lambda: an.energy_share(FOUR, np.ones((3, 2))),
}
SPECTRA = {
    "sigma: got negative or increasing": lambda: an.effective_rank(SIGMA[::-1]),
    "sigma: … negative": lambda: an.stable_rank(-np.ones(2)),
}

REFUSED = [
    *rows(AdapterConfig, CONFIGURED),
    *rows(adapt, ADAPTED),
    *rows(start, STARTED),
    *rows(there_and_back, NO_WAY_BACK),
    *values(ad.variant_config, "variant", "lora++"),
    *rows(partial(tr.RankAllocation, first=0.6), {"first, last: got 0.6 and 0.5, … at most 1": {"last": 0.5}}),
    *rows(lambda leaf: tr.allocating(None, adapt(kind="adalora", rate_factors={leaf: 0.0}), 10), FROZEN),
    *rows(partial(replace, tr.TrainConfig(40, 0.1)), TRAINED),
    *rows(partial(tr.learning_rate_at, 0, 10, 1.0), {SCHEDULES: {"schedule": "step"}}),
    *values(partial(tr.stream, purpose="head"), "seed", -1, 1.5, "0", None, True),
    *rows(partial(tr.evaluate, PARAMS, [], LANGUAGE), {"batches: got none": {}}),
    *rows(blend, MIXED),
    *rows(partial(ad.mix, PARAMS), {"adapters: got none": {"adapters": {}, "weights": {}}}),
    *values(partial(ad.compress, PARAMS, ADAPTER), "r", 0, -1, 1.5, True),
    *[row for call in (run, classify) for row in rows(call, FORWARD) + rows(call, NO_IDS, TypeError)],
    *rows(run, ROWS),
    *rows(run, {"adapter: got str for row 1, expected an Adapter or None": {"adapter": [None, "all"]}}, TypeError),
    *rows(classify, HEADS),
    *[row for use in (classify_adapted, merge_adapted) for row in rows(use, OF_ANOTHER_BASE)],
    *[(classify, {"lengths": lengths}, ValueError, "lengths") for lengths in LENGTHS],
    *rows(tiny_config, {"n_heads: 5 does not divide d_model = 12": {"n_heads": 5}}),
    (partial(mo.initial_params, LANGUAGE, rng()), {"dtype": np.float16}, ValueError, "dtype: got float16"),
    *[(load_pretrained, {"dtype": d}, (ValueError, TypeError), "dtype") for d in (np.float16, np.int64, str)],
    *values(partial(mo.add_head, PARAMS, LANGUAGE, rng=rng()), "n_classes", 1, -1, 0),
    *rows(write, GENERATED),
    *values(write, "n_new", 0, 2.0),
    *values(partial(write, sampling=Sampling()), "rng", None, 0),
    *rows(write, NO_ADAPTERS, TypeError),
    *rows(write, {"logits of the next token are not finite": {"params": BROKEN}}, FloatingPointError),
    *rows(read_on, READ),
    *rows(read_on, {"ids: got float64, expected an array of integers": {"ids": PROMPTS.astype(float)}}, TypeError),
    *rows(mo.next_probabilities, {"repetition_penalty=1e-40": HUGE}, FloatingPointError),
    *calls(DATA),
    *rows(lambda table=TABLE, fractions=(0.8, 0.1, 0.1): data.split_table(table, fractions, seed=0), SPLIT),
    *calls(DATA_OF_ANOTHER_TYPE, TypeError),
    *calls(NO_FILE, FileNotFoundError),
    *calls(COMPRESSED),
    *[(make, {"weight": w}, error, says) for make in COMPRESSIONS for error, says, bad in NO_WEIGHTS for w in bad],
    *calls(COMPRESSED_OF_ANOTHER_TYPE, TypeError),
    *rows(lambda params=PARAMS, adapter=OF_Q, masks=None: ad.merge_in_format(params, adapter, masks), MERGED),
    *[(f, {}, ValueError, f"{n.split()[0]}: … has values that are not finite") for n, f in NOT_FINITE.items()],
    *[row for refused in (SHAPES, SUBSPACES, SPECTRA) for row in calls(refused)],
    *values(partial(an.intruder_dimensions, FOUR, FOUR, 1), "epsilon", 0.0, math.nan, "0.5"),
    *values(partial(an.rank_at_energy, SIGMA), "share", 0, 1.5, "0.9"),
    *values(partial(an.truncate, np.eye(3)), "k", -1, 1.0),
    *[row for count in (an.step_flops, an.step_bytes) for row in rows(partial(count, LANGUAGE), COUNTED)],
]


@pytest.mark.parametrize("call, arguments, error, message", REFUSED, ids=[row[-1] for row in REFUSED])
def test_a_bad_argument_is_refused_by_name(call, arguments, error, message):
    with pytest.raises(error) as caught:
        call(**arguments)
    assert all(part in str(caught.value) for part in message.split(" … "))
