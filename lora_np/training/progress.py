"""A progress bar on a terminal, and silence everywhere else."""

import sys
from contextlib import contextmanager


@contextmanager
def progress_bar(total, label):
    """Yield a function (step, measured) for `train`'s on_step, or None without a label, a terminal or tqdm.

    Parameters
    ----------
    total : int, steps in all
    label : str or None, the text beside the bar
    """
    if label is None or not sys.stderr.isatty():
        yield None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    with tqdm(total=total, desc=label, unit="step", leave=False) as bar:

        def on_step(step, measured):
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{measured['loss']:.3f}", refresh=False)

        yield on_step
