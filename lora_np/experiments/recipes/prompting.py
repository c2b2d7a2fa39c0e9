"""Prompting or LoRA: is it better to put examples into the prompt, or to train on them?

A prompt consists of 0 or 10 labelled snippets, half from each class, followed by a snippet to classify and
"Sentiment:"; SmolLM2-135M-Instruct answers " positive" or " negative". Prompting is compared with training only the
head, LoRA on q and v at rank 8, and full fine-tuning, each on 10 random snippets or on all 6,528. It is also compared
with the small base after the main job's full fine-tuning, and with logistic regression on tf-idf weights, fitted to all
snippets.
"""

from ..baseline import tfidf_baseline
from ..drawing import COLOURS, OTHERS, dots, panels
from ..evidence import ahead
from ..methods import by_method, tuned_runs
from ..runs.prompts import PromptRun
from . import low_data, main_job

CLAIM = """Training a few parameters on a few examples is more accurate than putting the examples into the prompt (Liu
et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning)."""
CAPTION = """Accuracy on the 1,000 test snippets, for each seed and as a mean with its interval. The seed determines the
examples and their order. Compare prompting with training on the same number of other snippets, and SmolLM2 with
the small base. SmolLM2's pretraining data may include similar reviews."""
BASES = ("smollm2",)
FEW = SHOTS = 10
SERIES = {  # name -> label and colour
    "shots_0": ("SmolLM2, no example", COLOURS["base"]),
    f"shots_{SHOTS}": (f"SmolLM2, {SHOTS} examples in the prompt", COLOURS["base"]),
    f"head_{FEW}": (f"head only, {FEW} snippets", COLOURS["head"]),
    f"qv_r8_{FEW}": (f"LoRA on q and v r=8, {FEW} snippets", COLOURS["lora_qv"]),
    f"full_{FEW}": (f"full fine-tuning, {FEW} snippets", COLOURS["full"]),
    "small": ("small base, full fine-tuning, all snippets", OTHERS[1]),
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
    more = main_job.QUICK["pretrained"] if quick else {}
    small = tuned_runs(["full"], seeds, passes=main_job.PASSES["pretrained"], **more)
    grid |= {("small", seed): run for (_, seed), run in small.items()}
    limit = grid["full", seeds[0]].limit
    grid |= {(f"shots_{SHOTS}", seed): PromptRun(SHOTS, seed, limit=limit) for seed in seeds}
    grid["shots_0", seeds[0]] = PromptRun(0, seeds[0], limit=limit)  # without examples, the seed has no effect
    return grid


def measure(results, runs, seeds, quick):
    accuracy = by_method(results, runs, "test_accuracy", 100)
    few, shots = f"qv_r8_{FEW}", f"shots_{SHOTS}"
    zero = accuracy | {"shots_0": accuracy["shots_0"] * len(seeds)}
    checks = [ahead(f"LoRA on {FEW} snippets − {SHOTS}-shot prompting: test accuracy", accuracy, few, shots)]
    asides = [
        ahead(f"{SHOTS}-shot prompting − zero-shot prompting: test accuracy", zero, shots, "shots_0"),
        ahead(f"LoRA on {FEW} snippets − zero-shot prompting: test accuracy", zero, few, "shots_0"),
        ahead("LoRA on all snippets − zero-shot prompting: test accuracy", zero, "qv_r8", "shots_0"),
        ahead("LoRA on all snippets − full fine-tuning of the small base: test accuracy", accuracy, "qv_r8", "small"),
    ]
    baseline, _ = tfidf_baseline(main_job.WORDS_LIMIT if quick else None)
    return {"checks": checks, "asides": asides, "accuracy": accuracy, "baseline": baseline}


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
