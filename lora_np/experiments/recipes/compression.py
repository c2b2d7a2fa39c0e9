"""Quantised and pruned bases: how well does LoRA work on them?

The linear layers of a base are quantised to NF4 (blocks of 64, double quantisation) or int8 (one scale per row), or
pruned by magnitude (half of each matrix's weights, or two of every four consecutive weights in a row). The base is then
frozen, and LoRA on all linear layers is trained: on the small base with r = 16, and on SmolLM2 with r = 4 and 2,000
snippets. On the small base, the head alone is also trained. SmolLM2's weights come from a file in Q4_1, so its
"dense" base already includes the error of four-bit quantisation. LoftQ is LoRA with an initialisation that compensates
for NF4's rounding errors. In QA-LoRA, A is applied to the means of blocks of 32 inputs. At the end, adapters are merged
into the base in a four-bit format (NF4; on SmolLM2 also Q4_1, the format of the file), which rounds the weights again.
"""

import numpy as np

from ...adapters import Adapter, linear_layers, merge_in_format
from ...compress import weight_bytes
from ...formats import read_model
from ..drawing import COLOURS, OTHERS, dots, panels
from ..evidence import as_good, check, compare
from ..methods import SOME, by_method, tuned_runs
from ..runs import load_base
from ..runs.classify import COMPRESSED, compressed, starting_point
from ..updates import scores_on_test

AS_GOOD = "LoRA on an NF4 base is as good as LoRA on the dense base (Dettmers et al. 2023, QLoRA), and "
CLAIM = {
    "pretrained": f"{AS_GOOD}on an NF4 base, LoftQ is better than LoRA (Li et al. 2023).",
    "smollm2": f"{AS_GOOD}QA-LoRA loses no accuracy when it is merged into four-bit weights (Xu et al. 2023).",
}
CAPTION = """Test accuracy on each base, with the size of its linear layers. Compare LoRA on each base with LoRA on the
dense base (dashed line), and with the accuracy after the adapter is merged into four-bit weights."""
BASES = ("pretrained", "smollm2")
LORA = {"pretrained": "all_r16", "smollm2": "all_r4"}


def runs(seeds, quick, base="pretrained"):
    """A dict, ("weight format, method", seed) -> run."""
    grid, on = {}, {"base": base} | (SOME if base == "smollm2" else {})
    for weights in COMPRESSED:
        keys = (LORA[base],) if base == "smollm2" else ("head", LORA[base])
        for (key, seed), run in tuned_runs(keys, seeds, quick, weights=weights, **on).items():
            grid[f"{weights}, {key}", seed] = run
    weights, key = ("dense", "qalora") if base == "smollm2" else ("nf4", "loftq")
    return grid | {(f"{weights}, {key}", seed): run for (_, seed), run in tuned_runs([key], seeds, quick, **on).items()}


def measure(results, runs, seeds, quick):
    accuracy, loss = by_method(results, runs, "test_accuracy", 100), by_method(results, runs, "test_loss")
    base = next(iter(runs.values())).base
    (params, *_), sizes, merged = load_base(base), {}, {}
    for name in COMPRESSED:
        weights = compressed(params, name)
        sizes[name] = weight_bytes({module: weights[f"{module}.weight"] for module in linear_layers(params)})
    lora = {name: f"{name}, {LORA[base]}" for name in COMPRESSED}
    text = "LoRA (base: {}) − LoRA (base: dense): test loss"
    nf4, *others = (
        as_good(text.format(name.replace("nf4", "NF4")), loss, lora[name], lora["dense"]) for name in COMPRESSED[1:]
    )
    checks, asides, back = [nf4], others, {lora["nf4"]: "NF4"}
    if base == "smollm2":
        asides.append(as_good("QA-LoRA − LoRA (base: dense): test loss", loss, "dense, qalora", lora["dense"]))
        back |= {lora["dense"]: "Q4_1", "dense, qalora": "Q4_1"}
    else:
        loftq = "LoftQ − LoRA (base: NF4): test loss", loss, "nf4, loftq", lora["nf4"]
        checks.append(compare(*loftq, at_most=0.0, unit="nats"))
    for name, to in back.items():
        merged[name] = merged_back([runs[name, seed] for seed in seeds], results, to)
        losses, text = {"merged": merged[name]["loss"], name: loss[name]}, f"{label(name)} merged into {to}"
        unmerged = as_good(f"{text} − {label(name)} unmerged: test loss", losses, "merged", name)
        (checks if name.endswith("qalora") else asides).append(unmerged)
        lost = merged[name]["update_lost"]
        asides.append(check(f"{text}: ‖rounding error‖ / ‖ΔW‖", lost, at_most=1.0, unit="times"))
    return {"checks": checks, "asides": asides, "accuracy": accuracy, "linear_bytes": sizes, "merged": merged}


def label(name):
    """The label of a method whose name is "weight format, method"."""
    return {"loftq": "LoftQ", "qalora": "QA-LoRA", "head": "head only"}.get(name.rpartition(", ")[2], "LoRA")


def merged_back(runs, results, to):
    """Merge adapters into their base in a four-bit format: "NF4", or "Q4_1", the format of the base's file.

    Returns a dict: the accuracy and the loss after merging, and "update_lost", the norm of the rounding error relative
    to that of the update.
    """
    measured = {"accuracy": [], "loss": [], "update_lost": []}
    for run in runs:
        params, config, start = starting_point(run)
        if to == "Q4_1":
            params = params | read_model(run.base, weights="blocks").params
        back = merge_in_format(params, Adapter(start.config, results.arrays(run)))
        for name, value in {**scores_on_test(run, back.params, config), "update_lost": back.overall.update}.items():
            measured[name].append(value)
    return measured


def draw(outcome):
    figure, axes = panels(outcome, "LoRA on compressed bases\n", 10, 6.4)
    accuracy, rows = outcome["accuracy"], []
    colours = {"head only": COLOURS["head"], "LoRA": COLOURS["lora_all"], "LoftQ": OTHERS[1], "QA-LoRA": OTHERS[1]}
    for weights, size in outcome["linear_bytes"].items():
        for name in (name for name in accuracy if name.rpartition(", ")[0] == weights):
            text = f"{weights.replace('nf4', 'NF4')} ({size / 1e6:.3g} MB), {label(name)}"
            rows.append((text, accuracy[name], colours[label(name)]))
            if name in outcome["merged"]:
                to = "NF4" if weights == "nf4" else "Q4_1"
                rows.append((f"{label(name)} merged into {to}", outcome["merged"][name]["accuracy"], OTHERS[3]))
    dots(axes, *zip(*rows), "test accuracy in %")
    dense = np.mean(accuracy[f"dense, {LORA[outcome['base']]}"])
    axes.axvline(dense, color=COLOURS["lora_all"], linestyle="--", label="LoRA on the dense base")
    axes.legend(loc="lower left")
    return figure
