"""The methods that the experiments compare, and their runs at the learning rates that `tune` chose.

Each method has a separate learning rate for every combination of rank, base, number of epochs and number of training
snippets, because the best rate depends on all of these.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..adapters import AdapterConfig, variant_config
from ..formats import read_json
from .runs.classify import ClassifyRun

SETTINGS = Path(__file__).parent / "settings.json"  # written by `python -m lora_np tune`
QUICK = {"limit": 96, "epochs": 1, "evaluations": 1}
QUICK_ON = {"pretrained": {}, "minilm": {}, "smollm2": {"limit": 16}}
ON_BASE = {"pretrained": {}}  # fields of every run on a base
ON_BASE |= {"smollm2": {"base": "smollm2", "batch_size": 16}}
ON_BASE |= {"minilm": {"base": "minilm", "batch_size": 16, "folds": True}}
# The fields of runs on few snippets, which are trained for more epochs, so that there are at least 30 steps.
FEW = {n: {"examples": n, "epochs": epochs, "evaluations": 2} for n, epochs in ((10, 30), (100, 12), (1000, 4))}
FEW |= {n: {"examples": n, "epochs": 1, "evaluations": 1} for n in (600, 2000)}  # 600: the quick main job
SOME = FEW[2000]  # fields of most of SmolLM2's runs
TUNE_SEED, TUNE_SEEDS = 100, 2  # first seed and number of seeds; the seeds of experiments start at 0
MORE_SEEDS = {10: 8, 100: 8, 600: 4, 1000: 4}  # number of training snippets -> number of seeds for tuning

QV = ("q_proj", "v_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("up_proj", "down_proj")
ALL = "all-linear"
VARIANTS = {"rslora": "rsLoRA", "lora+": "LoRA+", "dora": "DoRA", "pissa": "PiSSA", "olora": "OLoRA"}
WIDE = {"q": 20, "k": 30, "v": 30}
DOWN_R3 = {"rank_pattern": {"down_proj": 3}, "alpha_pattern": {"down_proj": 6.0}}


class Method(NamedTuple):
    """A training method: a label, and the weights that it trains."""

    label: str
    adapter: AdapterConfig | None  # None to train the whole model


def lora(r, *targets):
    """The configuration of LoRA with α = 2r, so that s = 2 at every rank."""
    return AdapterConfig(r=r, alpha=2.0 * r, targets=targets)


def variant(name, r=8):
    """The configuration of a LoRA variant on q and v, by default at rank 8."""
    return variant_config(name, lora(r, *QV))


METHODS = {
    "head": Method("head only", AdapterConfig(targets=())),
    "full": Method("full fine-tuning", None),
    **{f"qv_r{r}": Method(f"LoRA q,v r={r}", lora(r, *QV)) for r in (1, 8, 12, 64)},
    **{f"all_r{r}": Method(f"LoRA all linear r={r}", lora(r, ALL)) for r in (1, 4, 8, 16, 64)},
    # Different matrices of MiniLM: all methods train as many parameters as qv_r8; those of the MLP, 6 % fewer.
    **{f"{name}_r16": Method(f"LoRA {name} r=16", lora(16, f"{name}_proj")) for name in "qkvo"},
    "qkvo_r4": Method("LoRA q,k,v,o r=4", lora(4, *ATTENTION)),
    "mlp_r3": Method("LoRA up,down r=3", lora(3, *MLP)),
    # Different matrices of SmolLM2: 23,040 parameters per block, and 1 % more for the MLP.
    **{f"{name}_r{r}": Method(f"LoRA {name} r={r}", lora(r, f"{name}_proj")) for name, r in WIDE.items()},
    "qkvo_r6": Method("LoRA q,k,v,o r=6", lora(6, *ATTENTION)),
    "gated_mlp": Method("LoRA gate,up r=4, down r=3", replace(lora(4, "gate_proj", *MLP), **DOWN_R3)),
    # Variants, on q and v.
    "lora": Method("LoRA", lora(8, *QV)),
    **{kind: Method(label, variant(kind)) for kind, label in VARIANTS.items()},
    "lora-fa": Method("LoRA-FA", variant("lora-fa", 16)),  # only B is trained, so the rank is doubled
    "vera": Method("VeRA", variant("vera", 256)),
    "adalora": Method("AdaLoRA r=12→8", variant("adalora", 12)),  # a third of the directions is pruned
}


def label(key):
    """A method's label."""
    return "tf-idf logistic regression" if key == "tfidf" else METHODS[key].label


def rate_name(key, passes=1, base="pretrained", examples=None):
    """The name of a learning rate in settings.json: "full", "full, 3 passes" or "minilm, all_r8, 100 snippets"."""
    size = f"{examples} snippets" if examples else f"{passes} passes"
    return ", ".join([base] * (base != "pretrained") + [key] + [size] * (examples is not None or passes > 1))


def tuned(name):
    """The learning rate that `tune` stored under a name."""
    chosen = read_json(SETTINGS)["chosen"]
    if name not in chosen:
        raise ValueError(f'no learning rate for {name!r}; add a guess to "chosen" in {SETTINGS.name}, then tune it')
    return chosen[name]


def learning_rate(key, passes=1, base="pretrained", examples=None):
    """A method's learning rate for a base, a number of epochs, and a number of training snippets (None: all)."""
    return tuned(rate_name(key, passes, base, examples))


def run_at(rate, key, seed, base="pretrained", quick=False, **more):
    """A run of a method at a given learning rate; `more` contains fields of ClassifyRun, and `quick` shortens it."""
    more = ON_BASE[base] | more
    if quick:
        more |= QUICK | QUICK_ON[base]
        if more.get("examples"):
            more["examples"] = min(more["examples"], more["limit"])
    return ClassifyRun(METHODS[key].adapter, seed, rate, **more)


def tuned_runs(keys, seeds, quick=False, passes=1, base="pretrained", tuned_on=None, **more):
    """Runs of several methods, each at its learning rate for the base, the epochs and the number of snippets.

    `quick` and `more` are as in `run_at`. `tuned_on` is the number of snippets on which the learning rates were tuned,
    if it differs from the number in `more`. The trained arrays are stored unless `more` sets `keep` to False. Returns a
    dict, (method, seed) -> run.
    """
    rates = {key: learning_rate(key, passes, base, tuned_on or more.get("examples")) for key in keys}
    more = {"epochs": passes, "keep": True} | more
    return {(key, seed): run_at(rates[key], key, seed, base, quick, **more) for key in keys for seed in seeds}


def by_rank(table, placement):
    """The entries of a table for LoRA on one placement: for "qv", those of "qv_r1" and "qv_r8" under 1 and 8."""
    start = f"{placement}_r"
    return {int(key.removeprefix(start)): of_key for key, of_key in table.items() if key.startswith(start)}
