"""Report training progress on stderr: on a terminal in one line that is updated, otherwise in a line per minute."""

import sys
import time
from contextlib import suppress

TERMINAL_PAUSE, PAUSE = 0.1, 60.0  # seconds between two lines
ERASE = "\r\033[K"  # moves to the start of the terminal's line, and erases it


class Progress:
    """A context manager that reports loss, speed and remaining time of `train`.

    Parameters
    ----------
    title : str at the start of each line, or None to show nothing
    step, total : int, number of completed steps, and total number of steps
    """

    def __init__(self, title, step, total):
        self.title, self.first, self.total = title, step, total
        self.on_terminal = title is not None and sys.stderr.isatty()
        self.started = self.shown = self.stopped = time.monotonic()
        self.idle, self.tokens = 0.0, 0  # total seconds of evaluations and saves, and total tokens

    def stepped(self, step, loss, batch, evaluates):
        """Report a step on a `Batch`; call this after the step and before any evaluation."""
        if self.title is None:
            return
        self.stopped, self.tokens = time.monotonic(), self.tokens + int(batch.lengths.sum())  # padding does not count
        if self.stopped - self.shown < (TERMINAL_PAUSE if self.on_terminal else PAUSE):
            return
        self.shown, seconds = self.stopped, self.stopped - self.started
        speed, left = self.tokens / max(seconds - self.idle, 1e-9), seconds * (self.total - step) / (step - self.first)
        text = f"loss {loss:.3f}, {speed:,.0f} tokens/s, {duration(left)} left{', evaluating' if evaluates else ''}"
        self.show(f"{self.title}: step {step} of {self.total}, {text}")

    def resumes(self):
        """Exclude evaluations and saves from the training time; call this before the next step."""
        self.idle += time.monotonic() - self.stopped

    def show(self, line):
        """Print a line. On a terminal, it replaces the previous line."""
        begin, end = (ERASE, "") if self.on_terminal else ("", "\n")
        with suppress(OSError):  # a closed stderr must not stop the training
            print(begin + line, end=end, file=sys.stderr, flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.on_terminal:
            self.show("")


def duration(seconds):
    """Format seconds, such as "6 min 34 s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
