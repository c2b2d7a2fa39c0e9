"""The learning rate by step: warm-up, then decay."""

import math

from ..checked import one_of

SCHEDULES = ("constant", "linear", "cosine")


def learning_rate_at(step, total_steps, peak, schedule="linear", warmup_steps=0, final_share=0.0):
    """The learning rate of one step.

    It rises linearly during the warm-up, reaches `peak` at the step after it, and falls towards final_share · peak:
    linearly, by half a cosine, or not at all. No step has a rate of 0 (transformers' schedules start there): the first
    of a warm-up of w steps has peak / (w + 1), and final_share · peak would come one step after the last.

    Parameters
    ----------
    step : int, 0 to total_steps − 1
    total_steps : int
    peak : float
    schedule : "constant", "linear" or "cosine"
    warmup_steps : int
    final_share : float, the share of the peak that is left at the end

    Returns
    -------
    float, above 0 for every step from 0 to total_steps − 1
    """
    one_of("schedule", schedule, SCHEDULES)
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)  # 0 up to just under 1
    shape = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
    return peak * (final_share + (1.0 - final_share) * shape[schedule])
