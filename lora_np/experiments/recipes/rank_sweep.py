"""Rank sweep: how does LoRA's accuracy depend on its rank, from 1 to 64?

A base model is trained for one epoch to predict the sentiment of Rotten Tomatoes snippets: with LoRA on q and v at
ranks 1 to 64, with LoRA on all linear layers at some of these ranks, by full fine-tuning, and by training only the
head. All LoRA runs have α = 2r, so that s = 2 at every rank. For given layers, all ranks have the same learning rate.
The verdict depends on the test loss, which varies less than the accuracy.
"""

from ..drawing import COLOURS, band, legend_below, log_axis, mean_line, panels
from ..evidence import ahead, as_good
from ..methods import METHODS, by_method, ranks_of
from . import main_job

CLAIM = """The rank barely matters: on q and v, r = 1 is nearly as good as r = 64 (Hu et al. 2021, table 6: accuracies
of 73.4 % and 73.5 % on WikiSQL)."""
CAPTION = """Test accuracy and test loss against the rank. For each line, compare the change from left to right with the
width of the intervals, with the distance to full fine-tuning, and with the gain from adapting more layers. On the same
layers, LoRA has the same learning rate at every rank."""
SMALL = *(f"qv_r{r}" for r in (1, 2, 4, 8, 16, 64)), *(f"all_r{r}" for r in (1, 4, 16, 64)), "full", "head"
KEYS = {"pretrained": SMALL, "smollm2": tuple(k for k in main_job.KEYS["smollm2"] if METHODS[k].factor == 1.0)}


def measure(results, runs, seeds, quick):
    accuracy, loss = by_method(results, runs, "test_accuracy", 100), by_method(results, runs, "test_loss")
    (one, *_, high), (low, *_, most) = ranks_of(loss, "qv"), ranks_of(loss, "all")
    text = f"LoRA q,v r={one} − LoRA q,v r={high}"
    checks = [as_good(f"{text}: test loss", loss, f"qv_r{one}", f"qv_r{high}")]
    asides = [
        ahead(f"{text}: test accuracy", accuracy, f"qv_r{one}", f"qv_r{high}", by=-1.0),
        as_good(f"LoRA all linear r={low} − LoRA all linear r={most}: test loss", loss, f"all_r{low}", f"all_r{most}"),
        as_good("LoRA q,v r=8 − full fine-tuning: test loss", loss, "qv_r8", "full"),
    ]
    trained = {key: results[runs[key, seeds[0]]]["trainable"] for key in loss}
    return {"checks": checks, "asides": asides, "accuracy": accuracy, "loss": loss, "trainable": trained}


def draw(outcome):
    figure, both = panels(outcome, "How much does the rank matter?", 13, 5.4, 2)
    for axes, name, text in zip(both, ("accuracy", "loss"), ("test accuracy in %", "test loss in nats per snippet")):
        values = outcome[name]
        for placement, where, marker in (("qv", "q and v", "o"), ("all", "all linear layers", "D")):
            ranks = ranks_of(values, placement)
            rows = [values[f"{placement}_r{r}"] for r in ranks]
            mean_line(axes, ranks, rows, COLOURS[f"lora_{placement}"], f"LoRA on {where}", marker)
        band(axes, values["full"], COLOURS["full"], "full fine-tuning")
        band(axes, values["head"], COLOURS["head"], "head only")
        log_axis(axes, sorted({*ranks_of(values, "qv"), *ranks_of(values, "all")}), "rank r")
        axes.set_ylabel(text)
    legend_below(figure, both[0], 4)
    return figure
