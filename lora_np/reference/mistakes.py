r"""Known mistakes in ports, most of which `mutants.py` cannot derive from the plain program.

For each mistake, `mistakes.txt` gives a sentence that the checker prints, and one or more changes to the plain program:

    the bias is not added
        linear: y + bias → y

Each change in `mistakes.txt` begins with the name of a function in `plain/`; functions in `cases.py` have the prefix
`cases.`. The correct text, before the arrow, occurs exactly once in the function's source. The incorrect text, after
the arrow, replaces it. In the incorrect text, `…` stands for the correct text, and `wrong.NAME` is a function in
`wrong.py`. `\n` is a line break. Lines with deeper indentation continue a sentence or a change.

Mistakes of the same form are written as a family, with the alternatives between ‹ and ›. The first mistake of a family
has the first alternative everywhere, the second mistake has the second, and so on:

    during generation, the positions of new tokens are too ‹high|low› by one
        forward: if past else 0 → ‹+|-› 1 …

A mistake lacks a change whose function is empty in its alternative: `‹expand|›: …` changes only the first mistake's
program.
"""

import re
from pathlib import Path

from .plain import cases, files, model, operations, training

FUNCTIONS = {f"cases.{name}": function for name, function in vars(cases).items()}
FUNCTIONS |= vars(files) | vars(training) | vars(model) | vars(operations)  # later functions override earlier ones
FAMILY = re.compile("‹(.*?)›")


def read_mistakes():
    """Read `mistakes.txt`; return a dict, sentence -> list of (function, correct text, incorrect text)."""
    text = Path(__file__).with_suffix(".txt").read_text("utf-8")
    text = re.sub(r"\n {8,}", " ", re.sub(r"^#.*\n|^\n", "", text, flags=re.MULTILINE))
    families = re.split(r"\n(?! )", text.rstrip())  # each begins with a sentence, which is not indented
    return {sentence: list(map(change, changes)) for family in families for sentence, *changes in members(family)}


def members(family):
    """Yield the lines of each mistake in a family, without changes that have no function."""
    for i in range(max((match.count("|") + 1 for match in FAMILY.findall(family)), default=1)):
        sentence, *changes = FAMILY.sub(lambda match, i=i: match[1].split("|")[i], family).splitlines()
        yield sentence, *(line.strip() for line in changes if not line.strip().startswith(":"))


def change(line):
    name, _, texts = line.replace(r"\n", "\n").partition(": ")
    right, _, wrong = texts.partition(" →")
    return FUNCTIONS[name], right, wrong.strip().replace("…", right)


MISTAKES = read_mistakes()
