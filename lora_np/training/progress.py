"""Report training progress: with a progress bar on a terminal, otherwise with one line per minute."""

import sys
import time
from collections import deque
from contextlib import contextmanager, nullcontext, suppress

BAR_EVERY, LINE_EVERY = 0.1, 60.0  # seconds
BAR = "{desc}: {percentage:3.0f}%|{bar}| step {n_fmt} of {total_fmt}{postfix}"


class Progress:
    """Reports the loss, the speed and the remaining time of a training run.

    Parameters
    ----------
    show : function (step, text), or None to show nothing
    pause : float, minimum number of seconds between two calls of `show`, and before the first call
    step, total : int, the number of completed steps and the total number of steps
    window : int, the number of recent steps from which the speed is computed. If the model is evaluated every `window`
        steps, the estimated remaining time includes the evaluations.
    """

    def __init__(self, show, pause, step, total, window):
        self.show, self.pause, self.total = show, pause, total
        self.last_shown = time.monotonic()
        self.idle = 0.0  # total time of evaluations and saves, in seconds
        self.marks = deque([(step, self.last_shown, 0.0, 0)], maxlen=window + 1)  # step, time, idle, tokens

    def stepped(self, step, loss, batch, evaluates):
        """Report a step on a `Batch`; call this after the step and before any evaluation."""
        if self.show is None:
            return
        now, tokens = time.monotonic(), self.marks[-1][-1] + int(batch.lengths.sum())  # padding is not counted
        self.marks.append((step, now, self.idle, tokens))
        if now - self.last_shown < self.pause:
            return
        steps, seconds, idle, tokens = (new - old for new, old in zip(self.marks[-1], self.marks[0]))
        speed, left = tokens / max(seconds - idle, 1e-9), duration((self.total - step) * seconds / steps)
        self.show(step, f"loss {loss:.3f}, {speed:,.0f} tokens/s, {left} left{', evaluating' if evaluates else ''}")
        self.last_shown = now

    def resumes(self):
        """Exclude the time since the last step from the speed; call this after evaluations and saves."""
        self.idle += time.monotonic() - self.marks[-1][1]


@contextmanager
def progress_of(label, step, total, window):
    """Yield a `Progress` that writes to stderr under the title `label`, or that shows nothing if `label` is None."""
    bar = None
    if label is not None and sys.stderr.isatty():
        with suppress(ImportError):
            from tqdm import tqdm

            bar = tqdm(total=total, initial=step, desc=label, bar_format=BAR, leave=False)

    def draw(step, text):
        bar.n = step
        bar.set_postfix_str(text)

    def say(step, text):
        with suppress(OSError):  # a closed stderr must not stop the training
            print(f"{label}: step {step} of {total}, {text}", file=sys.stderr, flush=True)

    with bar or nullcontext():
        show, pause = (say, LINE_EVERY) if bar is None else (draw, BAR_EVERY)
        yield Progress(show if label is not None else None, pause, step, total, window)


def with_bar(items, label):
    """Iterate over a list and, on a terminal, show a progress bar if it takes more than two seconds."""
    if label is not None:
        with suppress(ImportError):
            from tqdm import tqdm

            return tqdm(items, label, leave=False, delay=2, disable=None, bar_format=BAR.replace("step ", ""))
    return items


def duration(seconds):
    """Format a number of seconds as text; for example, 394 becomes "6 min 34 s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
