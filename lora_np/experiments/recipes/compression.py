"""Is LoRA on a base in NF4 as good as LoRA on the dense base?

The base's linear layers are quantised to NF4 (blocks of 64, double quantisation) or int8 (one scale per row), or pruned
by magnitude (half of each matrix's weights, or two of every four consecutive weights in a row). The base is then
frozen, and LoRA on all linear layers is trained with r = 8, at the learning rate of the dense base. At the end, each
adapter trained on the NF4 base is also merged into that base, whose weights are then quantised to NF4 again."""

import numpy as np

from ...adapters import Adapter, linear_layers, merge_in_format
from ...compress import weight_bytes
from ..design import Design, Recipe, accuracy, over_seeds
from ..drawing import COLOURS, OTHERS, beside_differences, dots, legend_below
from ..methods import tuned_runs
from ..runs import load_base
from ..runs.classify import WEIGHTS, compressed, starting_point
from ..tables import cell, gathered, means_of, scores
from ..updates import scores_on_test

LORA = "all_r8"


def runs(seeds, quick, base="minilm"):
    """A dict, (weight format, seed) -> run."""
    grid = {}
    for weights in WEIGHTS:
        more = {"base": base, "weights": weights, "keep": weights in ("dense", "nf4")}
        grid |= {(weights, seed): run for (_, seed), run in tuned_runs([LORA], seeds, quick, **more).items()}
    return grid


def measure(results, runs, seeds, quick):
    params, sizes = load_base(next(iter(runs.values())).base)[0], {}
    for name in WEIGHTS:
        weights = compressed(params, name)
        sizes[name] = weight_bytes({module: weights[f"{module}.weight"] for module in linear_layers(params)})
    merged = gathered([merged_again(results, runs["nf4", seed]) for seed in seeds])
    return scores(results, runs, seeds, quick) | {"linear_bytes": sizes, "merged": merged}


def merged_again(results, run):
    """The test scores of a run's adapter merged into its NF4 base, and the rounding error's norm / the update's."""
    params, config, start = starting_point(run)
    merged = merge_in_format(params, Adapter(start.config, results.arrays(run)))
    return scores_on_test(run, merged.params, config) | {"update_lost": merged.overall.update}


def conclude(outcome):
    others = [
        (Design(f"LoRA (base: {weights}) − LoRA (base: dense): test accuracy"), accuracy(outcome, weights, "dense"))
        for weights in WEIGHTS[2:]
    ]
    merged, mean = outcome["merged"]["accuracy"], means_of(outcome["accuracy"])
    lost = over_seeds(outcome, np.subtract(merged, outcome["accuracy"]["nf4"]))
    others.append((Design("LoRA merged into NF4 − LoRA on the NF4 base: test accuracy"), lost))
    finding = (
        f"LoRA reaches {mean['dense']:.1f} % on the dense base, {mean['nf4']:.1f} % on NF4, {mean['int8']:.1f} % on "
        f"int8 and {mean['pruned 50 %']:.1f} % with half of the weights pruned. Merged into NF4 weights, it falls to "
        f"{np.mean(merged):.1f} %."
    )
    return accuracy(outcome, "nf4", "dense"), others, finding


def rows_of(outcome):
    """For each weight format, and for the merged adapters: a label, the accuracies and a colour."""
    rows = []
    for weights, size in outcome["linear_bytes"].items():
        name = weights.replace("nf4", "NF4")
        size = f"{size / 1e6:.3g} MB{', with zeros' * ('pruned' in name)}"
        rows.append((f"{name} ({size})", outcome["accuracy"][weights], COLOURS["lora_all"]))
        if weights == "nf4":
            rows.append((f"merged into NF4 ({size})", outcome["merged"]["accuracy"], OTHERS[3]))
    return rows


def table(outcome):
    rows = [[text, cell(values)] for text, values, _ in rows_of(outcome)]
    return [["base (size of its linear layers)", "test accuracy, % [95 % interval]"], *rows]


def draw(outcome):
    figure, axes = beside_differences(outcome, "LoRA on compressed bases", 5)
    dots(axes, rows_of(outcome), "test accuracy in %")
    dense = np.mean(outcome["accuracy"]["dense"])
    axes.axvline(dense, color=COLOURS["lora_all"], linestyle="--", label="LoRA on the dense base")
    legend_below(figure, axes, 1)
    return figure


RECIPE = Recipe(
    claim="LoRA on an NF4 base is as good as LoRA on the dense base (Dettmers et al. 2023, QLoRA).",
    design=Design("LoRA (base: NF4) − LoRA (base: dense): test accuracy", expected="equal"),
    bases=("minilm",),
    caption="""Test accuracy on each base, with the size of its linear layers. Compare LoRA on each base with LoRA on
    the dense base (dashed line), and with the accuracy after the adapter is merged into four-bit weights. Right panel:
    the differences for each seed, which decide.""",
)
