"""How much better is fine-tuning than prompting?

A prompt consists of 0 or 10 labelled snippets, half from each class, followed by a snippet to classify and
"Sentiment:"; SmolLM2-135M-Instruct answers " positive" or " negative". Prompting is compared with training only the
head, LoRA on q and v at rank 8, and full fine-tuning, each on 10 random snippets or on all, and with logistic
regression on tf-idf weights, fitted to all snippets."""

import numpy as np

from ..baseline import tfidf_baseline
from ..design import Design, Recipe, further
from ..drawing import COLOURS, dots, panels
from ..methods import by_method
from ..runs.prompts import PromptRun
from . import low_data, main_job

FEW = SHOTS = 10
SERIES = {  # name -> label and colour
    "shots_0": ("SmolLM2, no example", COLOURS["base"]),
    f"shots_{SHOTS}": (f"SmolLM2, {SHOTS} examples in the prompt", COLOURS["base"]),
    f"head_{FEW}": (f"head only, {FEW} snippets", COLOURS["head"]),
    f"qv_r8_{FEW}": (f"LoRA on q and v r=8, {FEW} snippets", COLOURS["lora_qv"]),
    f"full_{FEW}": (f"full fine-tuning, {FEW} snippets", COLOURS["full"]),
    "head": ("head only, all snippets", COLOURS["head"]),
    "qv_r8": ("LoRA on q and v r=8, all snippets", COLOURS["lora_qv"]),
    "full": ("full fine-tuning, all snippets", COLOURS["full"]),
}


def runs(seeds, quick, base="smollm2"):
    """A dict, (name in SERIES, seed) -> run."""
    grid = {}
    for (key, n, seed), run in low_data.runs(seeds, quick, base).items():
        if n in (FEW, low_data.ALL):
            grid[key if n == low_data.ALL else f"{key}_{n}", seed] = run
    limit = grid["full", seeds[0]].limit
    grid |= {(f"shots_{SHOTS}", seed): PromptRun(SHOTS, seed, limit=limit) for seed in seeds}
    grid["shots_0", seeds[0]] = PromptRun(0, seeds[0], limit=limit)  # without examples, the seed has no effect
    return grid


def measure(results, runs, seeds, quick):
    baseline, _ = tfidf_baseline(main_job.WORDS_LIMIT if quick else None)
    return {"accuracy": by_method(results, runs, "test_accuracy", 100), "baseline": baseline}


def compare(outcome):
    of = outcome["accuracy"]
    zero, few, shots = of["shots_0"][0], np.array(of[f"qv_r8_{FEW}"]), np.array(of[f"shots_{SHOTS}"])
    others = [
        further(f"LoRA on {FEW} snippets − {SHOTS}-shot prompting: test accuracy", few - shots, expected="more"),
        further(f"{SHOTS}-shot prompting − zero-shot prompting: test accuracy", shots - zero),
    ]
    return (np.subtract(of["qv_r8"], zero),), others


def finding(outcome):
    mean = {key: np.mean(values) for key, values in outcome["accuracy"].items()}
    return (
        f"Without training, SmolLM2 labels {mean['shots_0']:.1f} % of the snippets correctly, and with {SHOTS} "
        f"examples in the prompt, {mean[f'shots_{SHOTS}']:.1f} %; LoRA reaches {mean[f'qv_r8_{FEW}']:.1f} % after "
        f"training on {FEW} snippets, and {mean['qv_r8']:.1f} % on all."
    )


def draw(outcome):
    figure, axes = panels(outcome, "Examples in the prompt, or in the weights?\n", 10, 5.8)
    labels, colours = zip(*SERIES.values())
    dots(axes, labels, [outcome["accuracy"][key] for key in SERIES], colours, "test accuracy in %")
    words = 100 * outcome["baseline"]["test_accuracy"]
    axes.axvline(words, color=COLOURS["tfidf"], linestyle="--", label=f"tf-idf, all snippets: {words:.1f} %")
    axes.legend(loc="lower left")
    return figure


def table(outcome):
    """The rows of the table as lists of strings, the header first."""
    rows = [["method", "test accuracy with each seed, %"]]
    for key, (label, _) in SERIES.items():
        rows.append([label, " ".join(f"{value:.1f}" for value in outcome["accuracy"][key])])
    return rows


RECIPE = Recipe(
    claim="""Training a few parameters is more accurate than putting examples into the prompt (Liu et al. 2022, Few-Shot
    Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning).""",
    design=Design("LoRA on all snippets − zero-shot prompting: test accuracy", expected="more"),
    bases=("smollm2",),
    runs=runs,
    measure=measure,
    compare=compare,
    finding=finding,
    draw=draw,
    table=table,
    caption="""Accuracy on the 1,000 test snippets, for each seed and as a mean with its interval. The seed determines
    the examples and their order. Compare prompting with training on the same number of other snippets. SmolLM2's
    pretraining data may include similar reviews.""",
)
