"""The progress of a training: a bar on a terminal, and a line per minute everywhere else."""

import sys
import time
from collections import deque
from contextlib import contextmanager, nullcontext, suppress

BAR_EVERY, LINE_EVERY = 0.1, 60.0  # seconds
BAR = "{desc}: {percentage:3.0f}%|{bar}| step {n_fmt} of {total_fmt}{postfix}"


class Progress:
    """Report the steps of `train`.

    Parameters
    ----------
    show : function (step, text); None: nothing is shown
    pause : float, seconds before the first call of `show` and between calls
    step, total : int, steps already done, and steps in all
    window : int, number of recent steps from which the speed is computed. If there is an evaluation every `window`
        steps, the time left includes the evaluations.
    """

    def __init__(self, show, pause, step, total, window):
        self.show, self.pause, self.total = show, pause, total
        self.shown = time.monotonic()
        self.between = 0.0  # seconds of evaluations and saves, in all
        self.marks = deque([(step, self.shown, 0.0, 0)], maxlen=window + 1)  # step, time, between, tokens

    def stepped(self, step, loss, batch, evaluates):
        """Call this after a step on a `Batch`, before its evaluation."""
        if self.show is None:
            return
        now, tokens = time.monotonic(), self.marks[-1][-1] + int(batch.lengths.sum())  # padding does not count
        self.marks.append((step, now, self.between, tokens))
        if now - self.shown < self.pause:
            return
        steps, seconds, between, tokens = (new - old for new, old in zip(self.marks[-1], self.marks[0]))
        speed, left = tokens / max(seconds - between, 1e-9), duration((self.total - step) * seconds / steps)
        self.show(step, f"loss {loss:.3f}, {speed:,.0f} tokens/s, {left} left{', evaluating' if evaluates else ''}")
        self.shown = now

    def resumes(self):
        """Call this before the next step."""
        self.between += time.monotonic() - self.marks[-1][1]


@contextmanager
def progress_of(label, step, total, window):
    """A context with a `Progress` on stderr under the title `label`; without a label it shows nothing."""
    bar = None
    if label is not None and sys.stderr.isatty():
        with suppress(ImportError):
            from tqdm import tqdm

            bar = tqdm(total=total, initial=step, desc=label, bar_format=BAR, leave=False)

    def draw(step, text):
        bar.n = step
        bar.set_postfix_str(text)

    def say(step, text):
        with suppress(OSError):  # the reader of stderr is gone, which is no reason to stop
            print(f"{label}: step {step} of {total}, {text}", file=sys.stderr, flush=True)

    with bar or nullcontext():
        show, pause = (say, LINE_EVERY) if bar is None else (draw, BAR_EVERY)
        yield Progress(show if label is not None else None, pause, step, total, window)


def duration(seconds):
    """A time such as "6 min 34 s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
