"""How well does LoRA work on quantised and pruned bases?

SmolLM2's linear layers are quantised to NF4 (blocks of 64, double quantisation) or int8 (one scale per row), or pruned
by magnitude (half of each matrix's weights, or two of every four consecutive weights in a row). The base is then
frozen, and LoRA on all linear layers is trained with r = 4 on 2,000 snippets. SmolLM2's weights come from a file in
Q4_1, so its "dense" base already includes the error of four-bit quantisation. In QA-LoRA, A is applied to the means of
blocks of 32 inputs. At the end, adapters are merged into the base in a four-bit format (NF4, or Q4_1, the format of the
file), which rounds the weights again."""

import numpy as np

from ...adapters import Adapter, linear_layers, merge_in_format
from ...compress import weight_bytes
from ...formats import read_model
from ..design import Design, Recipe, accuracy, further
from ..drawing import COLOURS, OTHERS, dots, panels
from ..methods import SOME, scores, tuned_runs
from ..runs import load_base
from ..runs.classify import WEIGHTS, compressed, starting_point
from ..updates import scores_on_test

LORA = "all_r4"
MERGED = {f"nf4, {LORA}": "NF4", f"dense, {LORA}": "Q4_1", "dense, qalora": "Q4_1"}  # run -> format


def runs(seeds, quick, base="smollm2"):
    """A dict, ("weight format, method", seed) -> run."""
    grid, on = {}, {"base": base} | SOME
    for weights in WEIGHTS:
        for (key, seed), run in tuned_runs([LORA], seeds, quick, weights=weights, **on).items():
            grid[f"{weights}, {key}", seed] = run
    return grid | {
        ("dense, qalora", seed): run for (_, seed), run in tuned_runs(["qalora"], seeds, quick, **on).items()
    }


def measure(results, runs, seeds, quick):
    (params, *_), sizes, merged = load_base(next(iter(runs.values())).base), {}, {}
    for name in WEIGHTS:
        weights = compressed(params, name)
        sizes[name] = weight_bytes({module: weights[f"{module}.weight"] for module in linear_layers(params)})
    for name, to in MERGED.items():
        merged[name] = merged_back([runs[name, seed] for seed in seeds], results, to)
    return scores(results, runs, seeds, quick) | {"linear_bytes": sizes, "merged": merged}


def compare(outcome):
    dense, others = f"dense, {LORA}", []
    for weights in WEIGHTS[2:]:
        text = f"LoRA (base: {weights}) − LoRA (base: dense): test accuracy"
        others.append(further(text, *accuracy(outcome, f"{weights}, {LORA}", dense)))
    for name, to in MERGED.items():
        values = np.subtract(outcome["merged"][name]["accuracy"], outcome["accuracy"][name])
        others.append(further(f"{label(name)} merged into {to} − unmerged: test accuracy", values, expected="equal"))
    return accuracy(outcome, f"nf4, {LORA}", dense), others


def finding(outcome):
    mean = {key: np.mean(values) for key, values in outcome["accuracy"].items()}
    merged = {key: np.mean(of["accuracy"]) for key, of in outcome["merged"].items()}
    return (
        f"LoRA reaches {mean[f'dense, {LORA}']:.1f} % on the dense base, {mean[f'nf4, {LORA}']:.1f} % on NF4, "
        f"{mean[f'int8, {LORA}']:.1f} % on int8 and {mean[f'pruned 50 %, {LORA}']:.1f} % with half of the weights "
        f"pruned. Merged into four-bit weights, LoRA falls to {merged[f'dense, {LORA}']:.1f} %, and QA-LoRA keeps "
        f"{merged['dense, qalora']:.1f} %."
    )


def label(name):
    """The label of a run that is named "weight format, method"."""
    return "QA-LoRA" if name.endswith("qalora") else "LoRA"


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
    accuracies, rows = outcome["accuracy"], []
    colours = {"LoRA": COLOURS["lora_all"], "QA-LoRA": OTHERS[1]}
    for weights, size in outcome["linear_bytes"].items():
        for name in (name for name in accuracies if name.rpartition(", ")[0] == weights):
            text = f"{weights.replace('nf4', 'NF4')} ({size / 1e6:.3g} MB), {label(name)}"
            rows.append((text, accuracies[name], colours[label(name)]))
            if name in outcome["merged"]:
                rows.append(
                    (f"{label(name)} merged into {MERGED[name]}", outcome["merged"][name]["accuracy"], OTHERS[3])
                )
    dots(axes, *zip(*rows), "test accuracy in %")
    dense = np.mean(accuracies[f"dense, {LORA}"])
    axes.axvline(dense, color=COLOURS["lora_all"], linestyle="--", label="LoRA on the dense base")
    axes.legend(loc="lower left")
    return figure


RECIPE = Recipe(
    claim="""LoRA on an NF4 base is as good as LoRA on the dense base (Dettmers et al. 2023, QLoRA), and QA-LoRA loses
    no accuracy when it is merged into four-bit weights (Xu et al. 2023).""",
    design=Design("LoRA (base: NF4) − LoRA (base: dense): test accuracy", expected="equal"),
    bases=("smollm2",),
    runs=runs,
    measure=measure,
    compare=compare,
    finding=finding,
    draw=draw,
    caption="""Test accuracy on each base, with the size of its linear layers. Compare LoRA on each base with LoRA on
    the dense base (dashed line), and with the accuracy after the adapter is merged into four-bit weights.""",
)
