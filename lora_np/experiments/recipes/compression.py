"""Quantised and pruned bases, with LoRA and without.

The linear layers of the base are put in NF4 (blocks of 64, double quantisation) or int8 (a scale a row), or pruned by
magnitude, half of all weights or two of every four in a row. That base is frozen, and a head alone, or a head and LoRA
on all linear layers at r = 16, is trained on it. LoftQ is LoRA whose start makes up for what NF4 loses. At the end,
LoRA is merged back into its NF4 base, which rounds again.
"""

from ...adapters import Adapter, linear_layers, merge_in_format
from ...compress import held_bytes
from ...training import blas_threads
from ..drawing import PALETTE, dots, mark_mean, panels
from ..evidence import as_good, check, compare
from ..methods import by_method, tuned_runs
from ..runs import load_base
from ..runs.classify import COMPRESSED, compressed, load_snippets, score, starting_point

CLAIM = (
    "LoRA on a base in NF4 is as good as on the base itself (Dettmers et al. 2023, QLoRA), and LoftQ's start is ahead "
    "of plain NF4 (Li et al. 2023)."
)
CAPTION = (
    "Test accuracy of a head alone and of LoRA on each base, with the bytes of the base's linear layers. Look at how "
    "near LoRA brings each base to the line of the uncompressed one, and at what is left after merging into NF4."
)
LORA, LOFTQ = "all_r16", "loftq"


def runs(seeds, quick):
    """("base, method", seed) -> run."""
    grid = {
        (f"{base}, {key}", seed): run
        for base in COMPRESSED
        for (key, seed), run in tuned_runs(("head", LORA), seeds, quick, base=base).items()
    }
    return grid | {(f"nf4, {key}", seed): run for (key, seed), run in tuned_runs([LOFTQ], seeds, quick).items()}


def measure(results, runs, seeds, quick):
    accuracy, loss = by_method(results, runs, "test_accuracy", 100), by_method(results, runs, "test_loss")
    params, sizes = load_base()[0], {}
    for base in COMPRESSED:
        weights = compressed(params, base)
        sizes[base] = held_bytes({module: weights[f"{module}.weight"] for module in linear_layers(params)})
    merged = merged_back([runs[f"nf4, {LORA}", seed] for seed in seeds], results)

    def near_dense(base):
        return as_good(f"{base} and LoRA less dense and LoRA: test loss", loss, f"{base}, {LORA}", f"dense, {LORA}")

    loftq = "LoftQ less NF4 and LoRA: test loss", loss, f"nf4, {LOFTQ}", f"nf4, {LORA}"
    checks = [near_dense("nf4"), compare(*loftq, at_most=0.0, unit="nats")]
    loss["merged"] = merged["loss"]
    asides = [
        *(near_dense(base) for base in COMPRESSED[2:]),
        as_good("LoRA merged back into NF4 less unmerged: test loss", loss, "merged", f"nf4, {LORA}"),
        check("what rounding then moves, relative to ‖ΔW‖", merged["update_lost"], at_most=1.0, unit="times"),
    ]
    return {"checks": checks, "asides": asides, "accuracy": accuracy, "linear_bytes": sizes, "merged_back": merged}


def merged_back(runs, results):
    """LoRA merged into its quantised base: the accuracy and loss that are left, and how far rounding moved it."""
    measured = {"accuracy": [], "loss": [], "update_lost": []}
    for run in runs:
        params, config, start = starting_point(run)
        back = merge_in_format(params, Adapter(start.config, results.arrays(run)))
        with blas_threads(1):
            scored = score(back.params, None, config, load_snippets(run.limit), "test")
        measured["accuracy"].append(100 * scored["accuracy"])
        measured["loss"].append(scored["loss"])
        measured["update_lost"].append(back.overall.update)
    return measured


def draw(outcome):
    figure, axes = panels(outcome, "LoRA on compressed bases", 10, 6.2)
    accuracy, rows = outcome["accuracy"], []
    for base, size in outcome["linear_bytes"].items():
        name = f"{base} ({size / 1e6:.2f} MB)"
        rows.append((f"{name}, head only", accuracy[f"{base}, head"], PALETTE[3]))
        rows.append((f"{name}, LoRA", accuracy[f"{base}, {LORA}"], PALETTE[2]))
        if base == "nf4":
            rows.append((f"{name}, LoftQ", accuracy[f"nf4, {LOFTQ}"], PALETTE[0]))
            rows.append((f"{name}, LoRA merged back", outcome["merged_back"]["accuracy"], PALETTE[1]))
    dots(axes, *zip(*rows), "test accuracy in %")
    mark_mean(axes, accuracy[f"dense, {LORA}"], PALETTE[2], "LoRA on the dense base")
    axes.legend(loc="lower left")
    return figure
