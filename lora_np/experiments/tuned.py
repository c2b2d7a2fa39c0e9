"""The laboratory's methods by name, and the learning rates that the validation split chose for them.

Chosen once, by `python -m lora_np experiment all --tune`, and kept in `laboratory_settings.json`. LoRA has one rate for
all ranks of a placement, the best on average: chosen for each rank on its own, what chance chose would stand between
the ranks that are compared. Where methods are compared that differ in more, each has its own.
"""

from pathlib import Path
from typing import NamedTuple

from ..adapters import AdapterConfig, variant_config
from ..formats import read_json
from .methods import QV, lora
from .rates import choose_rates
from .runs import ClassifyRun

SETTINGS = Path(__file__).parent / "laboratory_settings.json"
QUICK = {"limit": 96, "epochs": 1, "evaluations": 1}


ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("up_proj", "down_proj")
ALL = "all-linear"


class Method(NamedTuple):
    """What is trained, and how."""

    label: str
    adapter: AdapterConfig | None  # None: the whole model
    rate: str  # a key of GUESSES: methods that differ in the rank alone share one learning rate
    more: dict = {}  # other fields of ClassifyRun


def variant(name, r=8):
    """A variant on q and v, by default at LoRA's rank 8."""
    return variant_config(name, lora(r, *QV))


METHODS = {
    "full": Method("full fine-tuning", None, "full"),
    "head": Method("head only", AdapterConfig(targets=()), "head"),
    **{f"qv_r{r}": Method(f"q,v r={r}", lora(r, *QV), "attention") for r in (1, 2, 4, 8, 16, 64)},
    **{f"all_r{r}": Method(f"all linear r={r}", lora(r, ALL), "all") for r in (1, 4, 16, 64)},
    # Which matrices, with the parameters of rank 8 on one square matrix of each block.
    **{f"{name}_r8": Method(f"{name} r=8", lora(8, f"{name}_proj"), "attention") for name in "qkvo"},
    "qk_r4": Method("q,k r=4", lora(4, "q_proj", "k_proj"), "attention"),
    "qkvo_r2": Method("q,k,v,o r=2", lora(2, *ATTENTION), "attention"),
    # Attention against MLP: 92,160 parameters of a block each, and 10,240; and attention on top of the MLP.
    "attention_r45": Method("attention r=45", lora(45, *ATTENTION), "attention_r45"),
    "mlp_r36": Method("MLP r=36", lora(36, *MLP), "mlp_r36"),
    "all_r36": Method("MLP and attention r=36", lora(36, ALL), "all_r36"),
    "attention_r5": Method("attention r=5", lora(5, *ATTENTION), "attention_r5"),
    "mlp_r4": Method("MLP r=4", lora(4, *MLP), "mlp_r4"),
    # Variants, on q and v.
    "lora": Method("LoRA", lora(8, *QV), "lora"),
    "rslora": Method("rsLoRA", variant("rslora"), "rslora"),
    "lora+": Method("LoRA+", variant("lora+"), "lora+"),
    "lora-fa": Method("LoRA-FA", variant("lora-fa", 16), "lora-fa"),  # B alone is trained: twice the rank
    "dora": Method("DoRA", variant("dora"), "dora"),
    "pissa": Method("PiSSA", variant("pissa"), "pissa"),
    "olora": Method("OLoRA", variant("olora"), "olora"),
    "vera": Method("VeRA", variant("vera", 256), "vera"),
    "adalora": Method("AdaLoRA r=12→8", variant("adalora", 12), "adalora"),  # a third of the directions is given up
    # On a base that starts in NF4.
    "loftq": Method("LoftQ, all linear r=16", variant_config("loftq", lora(16, ALL)), "all"),
    # Other batch sizes.
    **{
        f"{key}_batch{size}": Method(f"{label}, batch {size}", adapter, f"{key}_batch{size}", {"batch_size": size})
        for size in (8, 32, 128, 256)
        for key, label, adapter in (("full", "full fine-tuning", None), ("all_r16", "all linear r=16", lora(16, ALL)))
    },
}
# The rates that are tried first.
GUESSES = {
    **{"full": 2e-4, "head": 5e-3, "attention": 2e-3, "all": 2e-3},
    **{"attention_r45": 1e-3, "mlp_r36": 1e-3, "all_r36": 1e-3, "attention_r5": 4e-3, "mlp_r4": 2e-3},
    **{"lora": 2e-3, "rslora": 2e-3, "lora+": 5e-4, "lora-fa": 4e-3, "dora": 2e-3, "pissa": 2e-3, "olora": 2e-3},
    **{"vera": 2e-2, "adalora": 4e-3},
    **{"full_batch8": 1e-4, "full_batch32": 2e-4, "full_batch128": 4e-4, "full_batch256": 4e-4},
    **{"all_r16_batch8": 1e-3, "all_r16_batch32": 2e-3, "all_r16_batch128": 4e-3, "all_r16_batch256": 4e-3},
}
# What a rate that is shared is chosen with; the others with the one method that has it.
SHARED = {"attention": ("qv_r1", "qv_r8", "qv_r64"), "all": ("all_r1", "all_r16", "all_r64")}
TUNE_SEEDS = (100, 101)  # the experiments' count from 0


def tuned_run(key, seed, **more):
    """A run of a method at its chosen learning rate.

    Parameters
    ----------
    key : str, of METHODS
    seed : int
    more : other fields of ClassifyRun

    Returns
    -------
    ClassifyRun
    """
    method = METHODS[key]
    return ClassifyRun(method.adapter, seed, **{"learning_rate": learning_rate(key), **method.more, **more})


def learning_rate(key):
    """What was chosen for a method."""
    return read_json(SETTINGS)["chosen"][METHODS[key].rate]


def tune(executor=None, report=print, out=SETTINGS):
    """Choose the learning rates at two seeds apart from the experiments' own; see `choose_rates`."""

    def runs_of(name, rate):
        methods = [METHODS[key] for key in SHARED.get(name, ())] or [m for m in METHODS.values() if m.rate == name]
        return [ClassifyRun(m.adapter, seed, rate, **m.more, test=False) for m in methods for seed in TUNE_SEEDS]

    return choose_rates(GUESSES, runs_of, out, "python -m lora_np experiment all --tune", executor, report)


def tuned_runs(keys, seeds, quick=False, **more):
    """The runs of several methods, each at its chosen learning rate, from each seed.

    Parameters
    ----------
    keys : names of METHODS
    seeds : list of int
    quick : bool, shorten them
    more : other fields of ClassifyRun

    Returns
    -------
    dict, (method, seed) -> ClassifyRun
    """
    more = {"keep": True} | more | (QUICK if quick else {})
    return {(key, seed): tuned_run(key, seed, **more) for key in keys for seed in seeds}


def by_method(results, grid, field, factor=1.0):
    """One number of each run of a grid, in a row for each method.

    Parameters
    ----------
    results : see `laboratory.Results`
    grid : dict, (method, seed) -> run
    field : str, a name among the runs' numbers
    factor : float, what each is multiplied by: 100 for per cent

    Returns
    -------
    dict, method -> list of floats, one a seed
    """
    found = {}
    for (key, _), run in grid.items():
        found.setdefault(key, []).append(factor * results[run][field])
    return found


def differences(first, second):
    """first − second, seed by seed."""
    return [a - b for a, b in zip(first, second)]
