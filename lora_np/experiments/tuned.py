"""The laboratory's methods by name, and the learning rate that the validation split chose for each.

Chosen once, by `python -m lora_np experiment all --tune`, at a seed apart from the experiments' own, and kept in
`laboratory_settings.json`.
"""

from pathlib import Path
from typing import NamedTuple

from ..adapters import AdapterConfig, variant_config
from ..formats import read_json
from .rates import choose_rates
from .runs import ClassifyRun

SETTINGS = Path(__file__).parent / "laboratory_settings.json"
TUNE_SEED = 100  # the experiments' count from 0
QUICK = {"limit": 96, "epochs": 1, "evaluations": 1}


def lora(r, *targets):
    """LoRA with α = 2r, so that s = 2 at every rank."""
    return AdapterConfig(r=r, alpha=2.0 * r, targets=targets)


QV = ("q_proj", "v_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("up_proj", "down_proj")


class Method(NamedTuple):
    """What is trained, and how."""

    label: str
    adapter: AdapterConfig | None  # None: the whole model
    guess: float | str  # the first learning rate that is tried; or the method whose rate is taken over
    more: dict = {}  # other fields of ClassifyRun


def variant(name, r=8):
    """A variant on q and v, by default at LoRA's rank 8."""
    return variant_config(name, lora(r, *QV))


METHODS = {
    "full": Method("full fine-tuning", None, 2e-4),
    "head": Method("head only", AdapterConfig(targets=()), 1e-2),
    # Ranks; those between the tuned ones take the rate of the nearest.
    "qv_r1": Method("q,v r=1", lora(1, *QV), 4e-3),
    "qv_r2": Method("q,v r=2", lora(2, *QV), "qv_r1"),
    "qv_r4": Method("q,v r=4", lora(4, *QV), "qv_r8"),
    "qv_r8": Method("q,v r=8", lora(8, *QV), 4e-3),
    "qv_r16": Method("q,v r=16", lora(16, *QV), "qv_r8"),
    "qv_r64": Method("q,v r=64", lora(64, *QV), 2e-3),
    "all_r1": Method("all linear r=1", lora(1, "all-linear"), 4e-3),
    "all_r4": Method("all linear r=4", lora(4, "all-linear"), 2e-3),
    "all_r16": Method("all linear r=16", lora(16, "all-linear"), 2e-3),
    "all_r64": Method("all linear r=64", lora(64, "all-linear"), 1e-3),
    # Which matrices, with the parameters of rank 8 on one square matrix of each block.
    "q_r8": Method("q r=8", lora(8, "q_proj"), 4e-3),
    "k_r8": Method("k r=8", lora(8, "k_proj"), 4e-3),
    "v_r8": Method("v r=8", lora(8, "v_proj"), 4e-3),
    "o_r8": Method("o r=8", lora(8, "o_proj"), 4e-3),
    "qk_r4": Method("q,k r=4", lora(4, "q_proj", "k_proj"), 4e-3),
    "qkvo_r2": Method("q,k,v,o r=2", lora(2, *ATTENTION), 4e-3),
    # Attention against MLP: 92,160 parameters of the blocks each, and 10,240.
    "attention_r45": Method("attention r=45", lora(45, *ATTENTION), 1e-3),
    "mlp_r36": Method("MLP r=36", lora(36, *MLP), 1e-3),
    "all_r20": Method("all linear r=20", lora(20, "all-linear"), "all_r16"),
    "attention_r5": Method("attention r=5", lora(5, *ATTENTION), 4e-3),
    "mlp_r4": Method("MLP r=4", lora(4, *MLP), 4e-3),
    # Variants, on q and v.
    "rslora": Method("rsLoRA", variant("rslora"), 2e-3),
    "lora+": Method("LoRA+", variant("lora+"), 1e-3),
    "lora-fa": Method("LoRA-FA", variant("lora-fa", 16), 4e-3),  # B alone is trained: twice the rank
    "dora": Method("DoRA", variant("dora"), 4e-3),
    "pissa": Method("PiSSA", variant("pissa"), 1e-3),
    "olora": Method("OLoRA", variant("olora"), 1e-3),
    "vera": Method("VeRA", variant("vera", 256), 2e-2),
    "adalora": Method("AdaLoRA", variant("adalora", 12), 4e-3),  # a third of the directions is given up
    # On a base that starts in NF4.
    "loftq": Method("LoftQ, all linear r=16", variant_config("loftq", lora(16, "all-linear")), 2e-3),
    # Other batch sizes, for one epoch.
    **{
        f"{key}_batch{size}": Method(f"{label}, batch {size}", adapter, guess, {"batch_size": size, "epochs": 1})
        for size, factor in ((8, 0.5), (32, 1.0), (128, 2.0), (512, 4.0))
        for key, label, adapter, guess in (
            ("full", "full fine-tuning", None, 2e-4 * factor),
            ("all_r16", "all linear r=16", lora(16, "all-linear"), 2e-3 * factor),
        )
    },
}


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
    guess = METHODS[key].guess
    return read_json(SETTINGS)["chosen"][guess if isinstance(guess, str) else key]


def tune(executor=None, report=print, out=SETTINGS):
    """Choose each method's learning rate at one seed; see `choose_rates`."""
    guesses = {key: method.guess for key, method in METHODS.items() if not isinstance(method.guess, str)}

    def run_of(key, rate):
        method = METHODS[key]
        return ClassifyRun(method.adapter, TUNE_SEED, rate, **method.more, test=False)

    return choose_rates(guesses, run_of, out, "python -m lora_np experiment all --tune", executor, report)


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
