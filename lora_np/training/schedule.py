"""The learning-rate schedule: a warm-up, then a decay."""

import math

from ..checked import one_of

SCHEDULES = ("constant", "linear", "cosine")


def learning_rate_at(step, total_steps, peak, schedule="linear", warmup_steps=0, final_share=0.0):
    """Return the learning rate at one step.

    The rate rises linearly during the warm-up and is `peak` in the first step after the warm-up. It then stays
    constant, or decays towards final_share · peak, linearly or along half a cosine wave. Unlike in transformers'
    schedules, no rate is 0: the first of w warm-up steps has the rate peak / (w + 1), and final_share · peak would be
    reached one step after the last.

    Parameters
    ----------
    step : int, 0 to total_steps − 1
    total_steps : int
    peak : float
    schedule : "constant", "linear" or "cosine"
    warmup_steps : int
    final_share : float, the final rate as a share of the peak

    Returns
    -------
    float, above 0 for every step from 0 to total_steps − 1
    """
    one_of("schedule", schedule, SCHEDULES)
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)  # in [0, 1)
    shape = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
    return peak * (final_share + (1.0 - final_share) * shape[schedule])
