"""Find where the stored outputs of a notebook differ from those of a new run.

Two cell tags allow differences. "training" marks the final results of a training run, which depend on the order of
float32 additions. "varies" marks results such as times, for which only the words are compared, not the numbers.
"""

import re

NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)
TRAINING_RTOL = 0.05
NO_LONGER = "No longer true:"  # the start of `lesson.claim`'s message, which no stored output may contain
SMALL_FACTOR = 100.0  # largest accepted ratio between rounding errors on two machines, such as 3e-11 and 4e-12


def disagreements(notebook, again):
    """Find where the outputs of two runs of a notebook differ. The contents of figures are not compared.

    Parameters
    ----------
    notebook : the notebook with its stored outputs
    again : the same notebook after another run

    Returns
    -------
    list of str, one for each difference and each output to stderr; each begins with the cell's number
    """
    problems = []
    for number, (cell, other) in enumerate(zip(notebook.cells, again.cells)):
        if cell.cell_type != "code":
            continue
        for output in other.outputs:
            if output.get("name") == "stderr":
                problems.append(f"cell {number}: writes to stderr: {output.text.strip()[:200]!r}")
        kinds, kinds_again = ([kind(output) for output in c.outputs] for c in (cell, other))
        if kinds != kinds_again:
            problems.append(f"cell {number}: stored {', '.join(kinds) or 'nothing'}; now {', '.join(kinds_again)}")
            continue
        for one, two in zip(cell.outputs, other.outputs):
            said = differs(text(one), text(two), tags(cell))
            if said:
                problems.append(f"cell {number}: {said}")
    return problems


def kind(output):
    if output.output_type == "stream":
        return output.name
    return "figure" if "image/png" in output.get("data", {}) else output.output_type


def text(output):
    """Return the text of an output, or "" for a figure."""
    if output.output_type == "stream":
        return output.text
    if kind(output) == "figure":
        return ""
    return output.get("data", {}).get("text/plain", output.get("evalue", ""))


def differs(stored_text, again_text, cell_tags=()):
    """Describe the first difference between two texts, or return None if they agree; numbers are compared by value."""
    words, words_again = (" ".join(NUMBER.sub("#", t).split()) for t in (stored_text, again_text))
    if words != words_again:
        return f"stored {excerpt(words, words_again)}; now {excerpt(words_again, words)}"
    if "varies" in cell_tags:
        return None
    rtol = TRAINING_RTOL if "training" in cell_tags else 0.0
    for one, two in zip(NUMBER.findall(stored_text), NUMBER.findall(again_text)):
        if not same_number(one, two, rtol):
            return f"stored {one}; now {two}"
    return None


def same_number(one, two, rtol):
    """Whether two printed numbers agree to within one unit in their last digit, or to within a relative tolerance."""
    a, b = (float(n.replace(",", "")) for n in (one, two))
    if a == b:
        return True
    if "e-" in one.lower() and "e-" in two.lower() and a * b > 0:
        return 1 / SMALL_FACTOR <= a / b <= SMALL_FACTOR
    unit = max(last_digit(one), last_digit(two)) if "." in one + two or rtol else 0.0
    return abs(a - b) <= unit * 1.001 + rtol * max(abs(a), abs(b))


def last_digit(number):
    """Return the place value of a printed number's last digit: 0.01 for "3.25"."""
    mantissa, _, exponent = number.lower().partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def excerpt(text, other, length=60):
    """Return the part of a text around its first difference from another text."""
    start = next((i for i, (a, b) in enumerate(zip(text, other)) if a != b), min(len(text), len(other)))
    return repr(text[max(0, start - 20) : start + length])


def tags(cell):
    return cell.metadata.get("tags", [])
