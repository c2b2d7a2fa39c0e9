"""Quantised and pruned bases, with LoRA and without.

The linear layers of the base are put in NF4 (blocks of 64, double quantisation) or int8 (a scale a row), or pruned by
magnitude, half of all weights or two of every four in a row. That base is frozen, and a head alone, or a head and LoRA
on all linear layers at r = 16, is trained on it. LoftQ is LoRA whose start makes up for what NF4 loses. In the end LoRA
is merged back into its NF4 base, which rounds again.
"""

from ...adapters import Adapter, linear_layers, merge_in_format
from ...compress import held_bytes
from ...training import blas_threads
from ..drawing import PALETTE, dots, mark_mean, new_figure, seeds_text
from ..evidence import EQUAL, check
from ..runs.base import load_base
from ..runs.classify import BASES, compressed, score, starting_point
from ..runs.sentiment import load_task
from ..tuned import differences, tuned_runs

CLAIM = (
    "LoRA on a base in NF4 is as good as on the base itself (Dettmers et al. 2023, QLoRA), and LoftQ's start is ahead "
    "of plain NF4 (Li et al. 2023)."
)
CAPTION = (
    "Test accuracy of a head alone and of LoRA on each base, with the bytes of the base's linear layers. Look at how "
    "far LoRA brings every base to the uncompressed one's line, and at what merging back into NF4 keeps."
)
LORA, LOFTQ = "all_r16", "loftq"


def grid(seeds, quick):
    """(base, method, seed) -> run."""
    found = {
        (base, key, seed): run
        for base in BASES
        for (key, seed), run in tuned_runs(("head", LORA), seeds, quick, base=base).items()
    }
    return found | {("nf4", key, seed): run for (key, seed), run in tuned_runs([LOFTQ], seeds, quick).items()}


def runs(seeds, quick):
    return list(grid(seeds, quick).values())


def measure(results, seeds, quick):
    all_runs, accuracy, loss = grid(seeds, quick), {}, {}
    for (base, key, _), run in all_runs.items():
        accuracy.setdefault(f"{base}, {key}", []).append(100 * results[run]["test_accuracy"])
        loss.setdefault(f"{base}, {key}", []).append(results[run]["test_loss"])
    held = {base: linear_bytes(compressed(load_base()[0], base)) for base in BASES}

    def as_good(base):
        more = differences(loss[f"{base}, {LORA}"], loss[f"dense, {LORA}"])
        return check(f"{base} and LoRA less dense and LoRA: test loss", more, at_most=EQUAL, unit="nats")

    better = differences(loss[f"nf4, {LOFTQ}"], loss[f"nf4, {LORA}"])
    parts = [as_good("nf4"), check("LoftQ less NF4 and LoRA: test loss", better, at_most=0.0, unit="nats")]
    merged = merged_back([all_runs["nf4", LORA, seed] for seed in seeds], results)
    kept = differences(merged["loss"], loss[f"nf4, {LORA}"])
    asides = [as_good(base) for base in BASES[2:]]
    asides.append(check("LoRA merged back into NF4 less unmerged: test loss", kept, at_most=EQUAL, unit="nats"))
    asides.append(check("what rounding then moves, to ‖ΔW‖", merged["update_lost"], at_most=1.0, unit="times"))
    return {"checks": parts, "asides": asides, "accuracy": accuracy, "linear_bytes": held, "merged_back": merged}


def linear_bytes(params):
    """Bytes that the linear layers of a model take up."""
    return held_bytes({module: params[f"{module}.weight"] for module in linear_layers(params)})


def merged_back(runs, results):
    """LoRA merged into its quantised base: what the model can still do, and the share of ‖ΔW‖ that rounding took."""
    found = {"accuracy": [], "loss": [], "update_lost": []}
    for run in runs:
        params, config, start = starting_point(run)
        back = merge_in_format(params, Adapter(start.config, results.arrays(run)))
        with blas_threads(1):
            scored = score(back.params, None, config, load_task(run.limit), "test")
        found["accuracy"].append(100 * scored["accuracy"])
        found["loss"].append(scored["loss"])
        found["update_lost"].append(back.overall.update)
    return found


def draw(outcome):
    figure = new_figure(10, 6.2)
    axes = figure.subplots()
    accuracy, held = outcome["accuracy"], outcome["linear_bytes"]
    rows = []
    for base in BASES:
        name = f"{base} ({held[base] / 1e6:.2f} MB)"
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
