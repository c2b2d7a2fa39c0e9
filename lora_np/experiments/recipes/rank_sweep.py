"""Rank sweep: accuracy against the rank, from 1 to 64.

The base is taught Rotten Tomatoes' sentiment with LoRA on q and v at ranks 1 to 64, with LoRA on all linear layers at
four of them, in full, and with a head alone, in one pass over the snippets. α = 2r, so that s = 2 throughout. All ranks
of a placement share one learning rate. The verdict rests on the test loss, which scatters less than the accuracy.
"""

from ..drawing import COLOURS, GREY, band, log_axis, mean_line, new_figure, seeds_text
from ..evidence import EQUAL, check, differences
from ..methods import by_method, tuned_runs

CLAIM = (
    "The rank barely matters: on q and v, r = 1 does nearly what r = 64 does (Hu et al. 2021, table 6: 73.4 against "
    "73.5 on WikiSQL)."
)
CAPTION = (
    "Test accuracy and test loss against the rank. Compare how much a line changes from left to right with its "
    "intervals, with the distance to full fine-tuning, and with what adapting more layers changes."
)
QV, ALL = (1, 2, 4, 8, 16, 64), (1, 4, 16, 64)
KEYS = (*(f"qv_r{r}" for r in QV), *(f"all_r{r}" for r in ALL), "full", "head")


def runs(seeds, quick):
    return tuned_runs(KEYS, seeds, quick)


def measure(results, runs, seeds, quick):
    accuracy, loss = by_method(results, runs, "test_accuracy", 100), by_method(results, runs, "test_loss")

    def more(text, first, second):
        return check(f"{text}: test loss", differences(loss[first], loss[second]), at_most=EQUAL, unit="nats")

    checks = [more("q and v, r = 1 less r = 64", "qv_r1", "qv_r64")]
    better = differences(accuracy["qv_r1"], accuracy["qv_r64"])
    asides = [
        check("q and v, r = 1 less r = 64: test accuracy", better, at_least=-1.0, unit="points"),
        more("all linear layers, r = 1 less r = 64", "all_r1", "all_r64"),
        more("q and v r = 8 less full fine-tuning", "qv_r8", "full"),
    ]
    trainable = {key: int(n[0]) for key, n in by_method(results, runs, "trainable").items()}
    return {"checks": checks, "asides": asides, "accuracy": accuracy, "loss": loss, "trainable": trainable}


def draw(outcome):
    figure = new_figure(13, 5.4)
    panels = figure.subplots(1, 2)
    for axes, name, text in zip(panels, ("accuracy", "loss"), ("test accuracy in %", "test loss in nats per snippet")):
        values = outcome[name]
        mean_line(axes, QV, [values[f"qv_r{r}"] for r in QV], COLOURS["lora_qv"], "LoRA on q and v")
        mean_line(axes, ALL, [values[f"all_r{r}"] for r in ALL], COLOURS["lora_all"], "LoRA on all linear layers", "D")
        band(axes, values["full"], COLOURS["full"], "full fine-tuning")
        band(axes, values["head"], GREY, "head only")
        log_axis(axes, QV, "rank r")
        axes.set_ylabel(text)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.suptitle(f"How much does the rank matter? ({seeds_text(outcome)})", fontsize=14)
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=11)
    return figure
