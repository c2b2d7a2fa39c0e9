"""Is LoRA better than full fine-tuning with 100 examples?

The seed determines the random choice of training snippets, which is the same for all methods. On MiniLM, there are 16
seeds with 10 and 100 snippets, two for each test fold, and 8 with more snippets. With 1,000 snippets or
fewer, training takes more epochs, and on MiniLM, each number of snippets has its own learning rates. Models are
evaluated on 1,000 validation snippets twice during training, and the better checkpoint is tested. In practice, 1,000
validation snippets are rarely available if there are only 10 for training; here, all methods benefit from them. On
SmolLM2, LoRA adapts only q and v, the learning rates were chosen on 2,000 snippets, and the only evaluation is at the
end.
"""

from ..design import FOLDS, Design, Recipe, accuracy
from ..drawing import beside_differences, colour, log_axis, marker, mean_line
from ..evidence import minus
from ..methods import FEW, label, tuned_runs
from ..tables import by_method, cell, means_of

EPOCHS = {10: 20, 100: 6, 1000: 2}  # on SmolLM2
FIELDS = {  # number of training snippets -> fields of the runs; all snippets come first, because they take longest
    "minilm": {6587: {}, **{n: FEW[n] for n in EPOCHS}},
    "smollm2": {6528: {}, **{n: {"examples": n, "epochs": EPOCHS[n], "evaluations": 1} for n in EPOCHS}},
}
LORA = {"minilm": "all_r8", "smollm2": "qv_r8"}
MANY = 1000  # from this number of snippets on, one seed for each fold is enough
LABELS = {"all_r8": "LoRA on all linear layers, r=8", "qv_r8": "LoRA on q and v, r=8", "full": "full fine-tuning"}
LABELS |= {"head": "head only"}


def design(base, n, second):
    """The Design of a comparison of LoRA and a second method, trained on n snippets."""
    return Design(f"{n:,} snippets, {label(LORA[base])} − {label(second)}: test accuracy")


def runs(seeds, quick, base="minilm"):
    """A dict, (method, number of snippets, seed) -> run."""
    keys, grid = (LORA[base], "full", "head"), {}
    more = {"tuned_on": 2000} if base == "smollm2" else {}
    for n, fields in FIELDS[base].items():
        of_n = seeds[:FOLDS] if n >= MANY else seeds
        of_size = tuned_runs(keys, of_n, quick, base=base, keep=False, **fields, **more)
        grid |= {(key, n, seed): run for (key, seed), run in of_size.items()}
    return grid


def measure(results, runs, seeds, quick):
    accuracies = by_method(results, runs, lambda run: 100 * results[run]["test_accuracy"])
    return {"accuracy": accuracies, "right": by_method(results, runs, "test_right")}


def of_size(outcome, n):
    """Restrict an outcome's tables to the runs with n training snippets."""
    return outcome | {
        name: {key: of_key[str(n)] for key, of_key in outcome[name].items()} for name in ("accuracy", "right")
    }


def conclude(outcome):
    base, others = outcome["base"], []
    lora = LORA[base]
    for n in sorted(outcome["accuracy"][lora], key=int):
        for second in ("full", "head"):
            if (n, second) != ("100", "full"):  # the main comparison
                others.append((design(base, int(n), second), accuracy(of_size(outcome, n), lora, second)))
    few, all_ = (means_of(of_size(outcome, n)["accuracy"]) for n in (100, max(FIELDS[base])))
    finding = (
        f"With 100 snippets, LoRA − full fine-tuning is {minus(few[lora] - few['full'], '+.1f')} points: "
        f"{few[lora]:.1f} and {few['full']:.1f} % (head: {few['head']:.1f} %). With all snippets, it is "
        f"{minus(all_[lora] - all_['full'], '+.1f')} points: {all_[lora]:.1f} and {all_['full']:.1f} % (head: "
        f"{all_['head']:.1f} %)."
    )
    return accuracy(of_size(outcome, 100), lora, "full"), others, finding


def table(outcome):
    accuracy = outcome["accuracy"]
    rows = [["training snippets", *(f"{LABELS[key]}: accuracy, %" for key in accuracy)]]
    for n in sorted(FIELDS[outcome["base"]]):
        rows.append([f"{n:,}", *(cell(of_key[str(n)]) for of_key in accuracy.values())])
    return rows


def draw(outcome):
    title = "LoRA, full fine-tuning and the head alone, from few examples to many"
    figure, axes = beside_differences(outcome, title, 5.6)
    sizes = sorted(map(int, outcome["accuracy"]["full"]))
    shifts = 0.94, 1.0, 1.06  # so that bars do not overlap
    for shift, (key, of_size) in zip(shifts, outcome["accuracy"].items()):
        mean_line(axes, {shift * n: of_size[str(n)] for n in sizes}, colour(key), LABELS[key], marker(key))
    axes.axhline(50, color="black", linestyle=":")
    axes.annotate("chance", (1000, 50), xytext=(0, 4), textcoords="offset points")
    log_axis(axes, sizes, "training snippets")
    axes.set_ylabel("test accuracy in %")
    axes.legend(loc="upper left")
    return figure


RECIPE = Recipe(
    claim="""With 100 examples, LoRA is better than full fine-tuning, and with 1,000 or all examples, it is at least as
    good (Hu et al. 2021, table 16: accuracies on MNLI of 63.8 % against 60.2 % with 100 examples, 85.6 % against 85.8 %
    with 1,000, and 91.7 % against 89.5 % with all).""",
    design={base: design(base, 100, "full")._replace(expected="more") for base in LORA},
    bases=("minilm", "smollm2"),
    seeds={"minilm": 2 * FOLDS},
    caption="""Test accuracy against the number of training snippets. The bars on the left contain the variation over
    the random choice of the snippets, which all methods share. Right panel: the differences for each seed, which
    decide.""",
)
