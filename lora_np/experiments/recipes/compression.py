"""Quantised and pruned bases, with LoRA and without.

The linear layers of the base are put in NF4 (blocks of 64, double quantisation) or int8 (a scale a row), or pruned by
magnitude, half of all weights or two of every four in a row. That base is frozen, and a head alone, or a head and LoRA
on all linear layers at r = 16, is trained on it. LoftQ is LoRA whose start makes up for what NF4 loses. At the end,
LoRA is merged back into its NF4 base, which rounds again.
"""

from ...adapters import Adapter, linear_layers, merge_in_format
from ...compress import held_bytes
from ...training import blas_threads
from ..drawing import PALETTE, dots, mark_mean, new_figure, seeds_text
from ..evidence import EQUAL, check, differences
from ..methods import tuned_runs
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
    """(base, method, seed) -> run."""
    grid = {
        (base, key, seed): run
        for base in COMPRESSED
        for (key, seed), run in tuned_runs(("head", LORA), seeds, quick, base=base).items()
    }
    return grid | {("nf4", key, seed): run for (key, seed), run in tuned_runs([LOFTQ], seeds, quick).items()}


def measure(results, runs, seeds, quick):
    accuracy, loss = {}, {}
    for (base, key, _), run in runs.items():
        accuracy.setdefault(f"{base}, {key}", []).append(100 * results[run]["test_accuracy"])
        loss.setdefault(f"{base}, {key}", []).append(results[run]["test_loss"])
    sizes = {base: linear_bytes(compressed(load_base()[0], base)) for base in COMPRESSED}

    def as_good(base):
        more = differences(loss[f"{base}, {LORA}"], loss[f"dense, {LORA}"])
        return check(f"{base} and LoRA less dense and LoRA: test loss", more, at_most=EQUAL, unit="nats")

    better = differences(loss[f"nf4, {LOFTQ}"], loss[f"nf4, {LORA}"])
    checks = [as_good("nf4"), check("LoftQ less NF4 and LoRA: test loss", better, at_most=0.0, unit="nats")]
    merged = merged_back([runs["nf4", LORA, seed] for seed in seeds], results)
    worse = differences(merged["loss"], loss[f"nf4, {LORA}"])
    asides = [as_good(base) for base in COMPRESSED[2:]]
    asides.append(check("LoRA merged back into NF4 less unmerged: test loss", worse, at_most=EQUAL, unit="nats"))
    asides.append(check("what rounding then moves, relative to ‖ΔW‖", merged["update_lost"], at_most=1.0, unit="times"))
    return {"checks": checks, "asides": asides, "accuracy": accuracy, "linear_bytes": sizes, "merged_back": merged}


def linear_bytes(params):
    """Bytes that the linear layers of a model take up."""
    return held_bytes({module: params[f"{module}.weight"] for module in linear_layers(params)})


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
    figure = new_figure(10, 6.2)
    axes = figure.subplots()
    accuracy, sizes = outcome["accuracy"], outcome["linear_bytes"]
    rows = []
    for base in COMPRESSED:
        name = f"{base} ({sizes[base] / 1e6:.2f} MB)"
        rows.append((f"{name}, head only", accuracy[f"{base}, head"], PALETTE[3]))
        rows.append((f"{name}, LoRA", accuracy[f"{base}, {LORA}"], PALETTE[2]))
        if base == "nf4":
            rows.append((f"{name}, LoftQ", accuracy[f"nf4, {LOFTQ}"], PALETTE[0]))
            rows.append((f"{name}, LoRA merged back", outcome["merged_back"]["accuracy"], PALETTE[1]))
    dots(axes, *zip(*rows), "test accuracy in %")
    mark_mean(axes, accuracy[f"dense, {LORA}"], PALETTE[2], "LoRA on the dense base")
    axes.legend(loc="lower left", fontsize=11)
    axes.set_title(f"LoRA on compressed bases ({seeds_text(outcome)})")
    return figure
