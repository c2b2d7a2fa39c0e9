r"""Known mistakes in ports, most of which `mutants.py` cannot derive from the plain program.

For each mistake, `mistakes.txt` gives a sentence that the checker prints, and one or more changes to the plain program:

    the bias is not added
        linear: y + bias → y

Each change in `mistakes.txt` begins with the name of a function in `plain/`; functions in `cases.py` have the prefix
`cases.`. The correct text, before the arrow, occurs exactly once in the function's source. The incorrect text, after
the arrow, replaces it. In the incorrect text, `…` stands for the correct text, and `wrong.NAME` is a function in
`wrong.py`. `\n` is a line break. Lines with deeper indentation continue a change.
"""

import re
from pathlib import Path

from .plain import cases, files, model, operations, training

FUNCTIONS = {f"cases.{name}": function for name, function in vars(cases).items()}
FUNCTIONS |= vars(files) | vars(training) | vars(model) | vars(operations)  # later functions override earlier ones


def read_mistakes():
    """Read `mistakes.txt`; return a dict, sentence -> list of (function, correct text, incorrect text)."""
    text, mistakes = Path(__file__).with_suffix(".txt").read_text("utf-8"), {}
    for line in re.sub(r"\n {8,}", " ", text).splitlines():
        if line and line[0] not in "# ":
            changes = mistakes[line] = []
        elif line.startswith(" "):
            name, _, change = line.strip().replace(r"\n", "\n").partition(": ")
            right, _, wrong = change.partition(" →")
            changes.append((FUNCTIONS[name], right, wrong.strip().replace("…", right)))
    return mistakes


MISTAKES = read_mistakes()
