"""The methods that the experiments compare, and their runs at the learning rates that `tune` chose.

For given layers, LoRA has the same learning rate at every rank. If each rank had its own, randomness in the choice of
learning rates would add to the differences between ranks. Methods that differ in more than the rank have separate
learning rates. The best rate also depends on the base and the number of epochs, so there is one for each combination.
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
ON_BASE |= {base: {"base": base, "batch_size": 16} for base in ("minilm", "smollm2")}
SOME = {"examples": 2000, "evaluations": 1}  # fields of most of SmolLM2's runs
TUNE_SEED, TUNE_SEEDS = 100, 2  # first seed and number of seeds; the seeds of experiments start at 0

QV = ("q_proj", "v_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("up_proj", "down_proj")
ALL = "all-linear"
VARIANTS = {"rslora": "rsLoRA", "lora+": "LoRA+", "dora": "DoRA", "pissa": "PiSSA", "olora": "OLoRA"}
WIDE = {"q": 20, "k": 30, "v": 30}
DOWN_R3 = {"rank_pattern": {"down_proj": 3}, "alpha_pattern": {"down_proj": 6.0}}
TEN_BLOCKS = {"first": "blocks.[0-9].*", "middle": "blocks.1[0-9].*", "last": "blocks.2[0-9].*"}


class Method(NamedTuple):
    """A training method: the weights that it trains, and its learning rate."""

    label: str
    adapter: AdapterConfig | None  # None to train the whole model
    rate: str  # the name of its learning rate; methods that differ only in the rank share it
    more: dict = {}  # other fields of ClassifyRun
    factor: float = 1.0  # multiplies the chosen learning rate


def lora(r, *targets):
    """The configuration of LoRA with α = 2r, so that s = 2 at every rank."""
    return AdapterConfig(r=r, alpha=2.0 * r, targets=targets)


def variant(name, r=8):
    """The configuration of a LoRA variant on q and v, by default at rank 8."""
    return variant_config(name, lora(r, *QV))


METHODS = {
    "head": Method("head only", AdapterConfig(targets=()), "head"),
    "full": Method("full fine-tuning", None, "full"),
    "scratch": Method("full, from random weights", None, "scratch", {"weights": "random"}),
    **{f"qv_r{r}": Method(f"LoRA q,v r={r}", lora(r, *QV), "attention") for r in (1, 2, 4, 8, 12, 16, 64)},
    **{f"all_r{r}": Method(f"LoRA all linear r={r}", lora(r, ALL), "all") for r in (1, 4, 8, 16, 64)},
    # This trains less than 1 % of the parameters. If q and k were included, only ranks up to 3 would do so.
    "vomlp_r4": Method("LoRA v,o,up,down r=4", lora(4, "v_proj", "o_proj", *MLP), "vomlp"),
    # Different matrices: all methods train as many parameters as rank 8 on one square matrix per block.
    **{f"{name}_r8": Method(f"LoRA {name} r=8", lora(8, f"{name}_proj"), "attention") for name in "qkvo"},
    "qk_r4": Method("LoRA q,k r=4", lora(4, "q_proj", "k_proj"), "attention"),
    **{f"qkvo_r{r}": Method(f"LoRA q,k,v,o r={r}", lora(r, *ATTENTION), "attention") for r in (2, 6)},
    # Attention or the MLP, with 92,160 or 10,240 parameters per block, and both together.
    "attention_r45": Method("attention r=45", lora(45, *ATTENTION), "attention_r45"),
    "mlp_r36": Method("MLP r=36", lora(36, *MLP), "mlp_r36"),
    "all_r36": Method("MLP and attention r=36", lora(36, ALL), "all_r36"),
    "attention_r5": Method("attention r=5", lora(5, *ATTENTION), "attention_r5"),
    "mlp_r4": Method("MLP r=4", lora(4, *MLP), "mlp_r4"),
    # Variants, on q and v.
    "lora": Method("LoRA", lora(8, *QV), "lora"),
    **{kind: Method(label, variant(kind), kind) for kind, label in VARIANTS.items()},
    "lora-fa": Method("LoRA-FA", variant("lora-fa", 16), "lora-fa"),  # only B is trained, so the rank is doubled
    "vera": Method("VeRA", variant("vera", 256), "vera"),
    "adalora": Method("AdaLoRA r=12→8", variant("adalora", 12), "adalora"),  # a third of the directions is pruned
    # Different matrices of SmolLM2: 23,040 parameters per block, as with qv_r12 and qkvo_r6, and 1 % more for the MLP.
    **{f"{name}_r{r}": Method(f"LoRA {name} r={r}", lora(r, f"{name}_proj"), "attention") for name, r in WIDE.items()},
    "gated_mlp": Method("LoRA gate,up r=4, down r=3", replace(lora(4, "gate_proj", *MLP), **DOWN_R3), "all"),
    # All thirty blocks of SmolLM2 or ten of them, with the same number of parameters.
    "all_r2": Method("LoRA all 30 blocks r=2", lora(2, ALL), "all"),
    **{f"{name}_r6": Method(f"LoRA {name} 10 blocks r=6", lora(6, of), "all") for name, of in TEN_BLOCKS.items()},
    "qalora": Method("QA-LoRA, all linear r=8", replace(lora(8, ALL), kind="qalora"), "qalora"),
    # SmolLM2's rates were chosen on 2,000 snippets; these methods train on all snippets at half those rates.
    "half_all_r4": Method("LoRA all linear r=4, half the rate", lora(4, ALL), "all", factor=0.5),
    "half_full": Method("full fine-tuning, half the rate", None, "full", factor=0.5),
    # This method is used on a base that is quantised to NF4.
    "loftq": Method("LoftQ, all linear r=16", variant_config("loftq", lora(16, ALL)), "all"),
    # Other batch sizes.
    **{
        f"{key}_batch{size}": Method(f"{label}, batch {size}", adapter, f"{key}_batch{size}", {"batch_size": size})
        for size in (8, 32, 128, 256)
        for key, label, adapter in (("full", "full fine-tuning", None), ("all_r16", "all linear r=16", lora(16, ALL)))
    },
}
# The methods used to tune each shared rate. Any other rate is tuned with the only method that uses it.
CHOOSING = {
    ("pretrained", 1): {"attention": ("qv_r1", "qv_r8", "qv_r64"), "all": ("all_r1", "all_r16", "all_r64")},
    ("pretrained", 3): {"attention": ("qv_r1", "qv_r4", "qv_r16"), "all": ("all_r1", "all_r8")},
    ("minilm", 1): {"attention": ("qv_r8",), "all": ("all_r8",)},
    ("smollm2", 1): {"attention": ("qv_r8", "qv_r64"), "all": ("all_r4", "all_r16")},
}


def rate_name(rate, passes=1, base="pretrained"):
    """The name of a learning rate in settings.json: "full", "full, 3 passes" or "smollm2, full"."""
    name = rate if passes == 1 else f"{rate}, {passes} passes"
    return name if base == "pretrained" else f"{base}, {name}"


def learning_rate(key, passes=1, base="pretrained"):
    """A method's learning rate for a given base and number of epochs."""
    return METHODS[key].factor * tuned(rate_name(METHODS[key].rate, passes, base))


def tuned(name):
    """The learning rate that `tune` stored under a name."""
    chosen = read_json(SETTINGS)["chosen"]
    if name not in chosen:
        raise ValueError(f'no learning rate for {name!r}; add a guess to "chosen" in {SETTINGS.name}, then tune it')
    return chosen[name]


def run_at(rate, key, seed, base="pretrained", **more):
    """A run of a method at a given learning rate."""
    return ClassifyRun(METHODS[key].adapter, seed, rate, **ON_BASE[base] | METHODS[key].more | more)


def tuned_runs(keys, seeds, quick=False, passes=1, base="pretrained", **more):
    """Runs of several methods, each at its tuned learning rate for the base and number of epochs.

    `more` contains fields of ClassifyRun, and `quick` shortens the runs. The trained arrays are stored unless `more`
    sets `keep` to False. Returns a dict, (method, seed) -> run.
    """
    more = {"epochs": passes, "keep": True} | (shortened(more, base) if quick else more)
    rates = {key: learning_rate(key, passes, base) for key in keys}
    return {(key, seed): run_at(rates[key], key, seed, base, **more) for key in keys for seed in seeds}


def shortened(more, base="pretrained"):
    """Return the fields in `more`, adjusted for a shortened ClassifyRun."""
    short = more | QUICK | QUICK_ON[base]
    few = {"examples": min(short["examples"], short["limit"])} if short.get("examples") else {}
    return short | few


def ranks_of(rows, placement):
    """The ranks of the methods in `rows` with a given placement: for "qv", the ranks of "qv_r1", "qv_r8" and so on."""
    return [int(key.removeprefix(f"{placement}_r")) for key in rows if key.startswith(f"{placement}_r")]


def by_method(results, grid, field, factor=None):
    """Collect one value from each run of a grid into a dict, method -> list of floats, one per seed.

    Parameters
    ----------
    results : see `store.Results`
    grid : dict, (method, seed) -> run; with longer keys, such as (method, rank, seed), the result is nested,
        method -> rank -> list. All keys become strings, as in JSON
    field : str, a key of each run's numbers; or a function of a run
    factor : float by which the values are multiplied, such as 100 for per cent, or None
    """
    table = {}
    for (*names, last, _), run in grid.items():
        rows = table
        for name in names:
            rows = rows.setdefault(str(name), {})
        number = field(run) if callable(field) else results[run][field]
        rows.setdefault(str(last), []).append(number if factor is None else factor * number)
    return table
