"""Rank sweep: accuracy against the rank, from 1 to 64.

The base is taught Rotten Tomatoes' sentiment with LoRA on q and v at ranks 1 to 64, with LoRA on all linear layers at
four of them, in full, and with a head alone, in one pass over the snippets. α = 2r, so that s = 2 throughout. All ranks
of a placement share one learning rate. The verdict rests on the test loss, which scatters less than the accuracy.
"""

from ..drawing import COLOURS, GREY, band, legend_below, log_axis, mean_line, panels
from ..evidence import ahead, as_good
from ..methods import by_method

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


def measure(results, runs, seeds, quick):
    accuracy, loss = by_method(results, runs, "test_accuracy", 100), by_method(results, runs, "test_loss")
    asides = [
        ahead("q and v, r = 1 less r = 64: test accuracy", accuracy, "qv_r1", "qv_r64", by=-1.0),
        as_good("all linear layers, r = 1 less r = 64: test loss", loss, "all_r1", "all_r64"),
        as_good("q and v r = 8 less full fine-tuning: test loss", loss, "qv_r8", "full"),
    ]
    checks = [as_good("q and v, r = 1 less r = 64: test loss", loss, "qv_r1", "qv_r64")]
    trained = {key: results[runs[key, seeds[0]]]["trainable"] for key in KEYS}
    return {"checks": checks, "asides": asides, "accuracy": accuracy, "loss": loss, "trainable": trained}


def draw(outcome):
    figure, both = panels(outcome, "How much does the rank matter?", 13, 5.4, 2)
    for axes, name, text in zip(both, ("accuracy", "loss"), ("test accuracy in %", "test loss in nats per snippet")):
        values = outcome[name]
        mean_line(axes, QV, [values[f"qv_r{r}"] for r in QV], COLOURS["lora_qv"], "LoRA on q and v")
        mean_line(axes, ALL, [values[f"all_r{r}"] for r in ALL], COLOURS["lora_all"], "LoRA on all linear layers", "D")
        band(axes, values["full"], COLOURS["full"], "full fine-tuning")
        band(axes, values["head"], GREY, "head only")
        log_axis(axes, QV, "rank r")
        axes.set_ylabel(text)
    legend_below(figure, both[0], 4)
    return figure
