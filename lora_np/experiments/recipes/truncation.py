"""How many directions does the update of full fine-tuning need?

Every ΔW of full fine-tuning is truncated to its r leading directions, and the model is tested again. The accuracy is
compared with that of the whole update, and with that of LoRA trained at rank r on all linear layers."""

import numpy as np

from ..design import Design, Recipe, over_seeds, ratio
from ..drawing import COLOURS, MARKERS, STYLES, band, colour, log_axis, mean_line, panels
from ..methods import by_rank, label
from ..tables import by_method, cell, gathered, means_of, scores
from ..updates import energy, scores_when_cut

CUTS = {"minilm": [0, 1, 2, 4, 8, 16, 64], "smollm2": [0, 1, 4, 16]}
MAIN = {"minilm": 8, "smollm2": 4}  # the rank of the main comparison
USUAL = 16  # LoRA's usual rank


def measure(results, runs, seeds, quick):
    full = [runs["full", seed] for seed in seeds]
    cut = gathered([scores_when_cut(results, run, CUTS[run.base]) for run in full])
    of_runs = by_method(results, runs, lambda run: energy(results, run))
    energies = {key: gathered(of_seeds) for key, of_seeds in of_runs.items()}
    shares, rank_90 = ({key: of[name] for key, of in energies.items()} for name in ("shares", "rank_90"))
    return scores(results, runs, seeds, quick) | {"cut": cut, "energy": shares, "rank_90": rank_90}


def cut_accuracy(outcome):
    """The accuracies of the truncated update, as a dict: rank as str -> values, one per seed."""
    return {r: of["accuracy"] for r, of in outcome["cut"].items()}


def conclude(outcome):
    accuracy, cut, main, others = outcome["accuracy"], cut_accuracy(outcome), str(MAIN[outcome["base"]]), []
    for r, lora in by_rank(accuracy, "all").items():
        if str(r) in cut:
            design = Design(f"LoRA r = {r} − full fine-tuning truncated to r = {r}: test accuracy")
            others.append((design, over_seeds(outcome, np.subtract(lora, cut[str(r)]))))
    many = ratio(f"(rank that captures 90 % of the energy of full fine-tuning's ΔW) / {USUAL}", (10, 100))
    of_90, mean, of_cut = outcome["rank_90"]["full"], means_of(accuracy), means_of(cut)
    others.append((many, np.divide(of_90, USUAL)))
    finding = (
        f"Truncated to its {main} leading directions per matrix, full fine-tuning's update reaches {of_cut[main]:.1f} "
        f"% instead of {mean['full']:.1f} %; truncated to 1, {of_cut['1']:.1f} %, where LoRA trained at rank 1 reaches "
        f"{mean['all_r1']:.1f} %. 90 % of the update's energy is in {np.mean(of_90):.0f} directions."
    )
    return over_seeds(outcome, np.subtract(cut[main], accuracy["full"])), others, finding


def table(outcome):
    accuracy = outcome["accuracy"]
    rows = [["rank", "full fine-tuning, truncated: accuracy, %", "LoRA on all linear layers: accuracy, %"]]
    for r, values in cut_accuracy(outcome).items():
        lora = accuracy.get(f"all_r{r}")
        rows.append([r, cell(values), cell(lora) if lora else ""])
    return [*rows, ["full", cell(accuracy["full"]), ""]]


def draw(outcome):
    title = "How many directions does the update have, and how many does it need?"
    figure, (left, right) = panels(outcome, title, 13, 5.2, 2)
    accuracy, cut = outcome["accuracy"], cut_accuracy(outcome)
    ranks = [r for r in cut if r != "0"]
    text = f"full fine-tuning, every ΔW truncated (to 0: {np.mean(cut['0']):.1f} %)"
    mean_line(left, {i: cut[r] for i, r in enumerate(ranks)}, COLOURS["full"], text, MARKERS["full"])
    lora = {ranks.index(str(r)): values for r, values in by_rank(accuracy, "all").items() if str(r) in cut}
    text = "LoRA on all linear layers, trained at that rank"
    mean_line(left, lora, COLOURS["lora_all"], text, MARKERS["lora_all"])
    band(left, accuracy["full"], COLOURS["full"], f"full fine-tuning, whole ΔW: {np.mean(accuracy['full']):.1f} %")
    left.set_xticks(range(len(ranks)), ranks)
    left.set(xlabel="rank that each update is truncated to", ylabel="test accuracy in %")
    left.legend(loc="lower right")
    for (key, shares), style in zip(outcome["energy"].items(), STYLES):
        share, rank = 100 * np.mean(shares, axis=0), np.mean(outcome["rank_90"][key])
        look = {"color": colour(key), "linestyle": style, "linewidth": 2}
        right.plot(range(1, len(share) + 1), share, **look, label=f"{label(key)}: 90 % in {rank:.0f}")
    right.axhline(90, color="black", linewidth=0.8)
    log_axis(right, 2 ** np.arange(int(np.log2(len(share))) + 1), "leading directions")
    right.set_ylabel("share of ‖ΔW‖² in %")
    right.legend(loc="lower right")
    return figure


KEYS = {"minilm": ("full", "all_r1", "all_r8", "all_r64"), "smollm2": ("full", "all_r1", "all_r4", "all_r16")}
PILOT = {"scatter": 0.26, "pilot": "the same with another test set, three seeds"}
RECIPE = Recipe(
    claim="""The updates of full fine-tuning have a low intrinsic rank (the hypothesis of Hu et al. 2021, section 4.1):
    truncated to a low rank, they are as good. But the rank that captures 90 % of an update's energy is 10 to 100 times
    LoRA's usual rank (Biderman et al. 2024).""",
    design={
        base: Design(
            f"full fine-tuning truncated to r = {r} − full fine-tuning: test accuracy", expected="equal", **PILOT
        )
        for base, r in MAIN.items()
    },
    keys=KEYS,
    on={"smollm2": {"tuned_on": 2000}},
    caption="""Left panel: test accuracy of full fine-tuning with every ΔW truncated to rank r, and of LoRA trained at
    rank r. Right panel: the share of ΔW's energy in its leading directions. An update may be spread over many
    directions, of which only a few are needed.""",
)
