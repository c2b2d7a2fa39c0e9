"""The conformance checker: a port's outputs against the reference vectors, in the order in which they are computed.

Where a port is wrong, nearly everything after the mistake is wrong too. What helps is the first tensor that is: all
before it were right, so the mistake lies in the step that makes it.
"""

import fnmatch
import math
from typing import NamedTuple

import numpy as np

from .cases import DTYPES, TIERS
from .causes import likely_causes
from .manifest import load_case, load_manifest
from .port_files import port_files, read_port_file, shown
from .tolerances import RTOL, off

MOST_COMPLAINTS = 6  # of one case, on a terminal


class Divergence(NamedTuple):
    """The first tensor of a case that is not the reference's."""

    tensor: str
    stage: str
    number: int  # its place among the case's outputs, from 1; 0 for an input that was handed back
    agreed: int  # outputs before it, all of which agree
    index: tuple[int, ...]  # of the entry that is furthest off
    got: float
    expected: float
    relative: float  # max|Δ| / rms
    entries_off: int
    entries: int
    causes: list[str]


class Result(NamedTuple):
    """What is to be said of one case's outputs in one precision."""

    file: str
    case: str
    tier: int
    dtype: str
    complaints: list[str]
    outputs: int
    worst: tuple[float, str]  # the largest share of a tolerance that was used up, and by which tensor
    divergence: Divergence | None
    catches: str  # the mistake that the case is there for


# ---------------------------------------------------------------- the comparison


def allowed(record, dtype):
    """(atol, rtol) of a tensor. Inputs, if they are handed back, have to be the same, and what has atol 0 too."""
    atol = record[dtype].get("atol", 0.0)
    return atol, RTOL[dtype] if atol else 0.0


def share_of_tolerance(got, expected, atol, rtol):
    """The largest |got − expected| as a share of what is allowed; of arrays that agree."""
    finite = np.isfinite(expected)
    wide, right = got[finite].astype(np.float64), expected[finite].astype(np.float64)
    delta, most = np.abs(wide - right), atol + rtol * np.abs(right)
    return float(np.max(delta[delta > 0] / most[delta > 0], initial=0.0))


def diverges(record, got, expected, dtype):
    """A Divergence, but for its place among the others and its causes; None where the tensor agrees."""
    wrong = off(got, expected, *allowed(record, dtype))
    if not wrong.any():
        return None
    with np.errstate(invalid="ignore"):  # inf − inf, where both are right
        delta = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    delta = np.where(wrong, np.where(np.isnan(delta), np.inf, delta), -1.0)
    index = np.unravel_index(int(np.argmax(delta)), delta.shape)
    size, largest = record[dtype]["rms"], float(delta.max())
    return Divergence(
        tensor=record["name"],
        stage=record["stage"],
        number=0,
        agreed=0,
        index=tuple(map(int, index)),
        got=float(got[index]),
        expected=float(expected[index]),
        relative=largest / size if size else math.inf,
        entries_off=int(wrong.sum()),
        entries=wrong.size,
        causes=[],
    )


def check_case(file, entry, folder):
    """The Result of one case's outputs.

    Parameters
    ----------
    file : PortFile
    entry : the case's, of the manifest
    folder : of the vectors
    """
    reference = load_case(entry, file.dtype, folder)
    got, complaints, named = read_port_file(file, reference)
    outputs = [record for record in entry["tensors"] if record["stage"] != "input"]
    absent = [r["name"] for r in outputs if r["name"] not in got and r["name"] not in named]
    complaints = [*(f"{file.path.name}: {name} is missing" for name in absent), *complaints]
    worst, first, agreed = (0.0, ""), None, 0
    handed_back = [record for record in entry["tensors"] if record["stage"] == "input"]
    for record in [*handed_back, *outputs]:
        name = record["name"]
        if name not in got:
            continue
        first = diverges(record, got[name], reference[name], file.dtype)
        if first is not None:
            break
        if record["stage"] != "input":
            agreed += 1
            share = share_of_tolerance(got[name], reference[name], *allowed(record, file.dtype))
            worst = max(worst, (share, name))
    if first is not None:
        names = [record["name"] for record in outputs]
        number = names.index(first.tensor) + 1 if first.tensor in names else 0
        causes = likely_causes(entry, reference, got, first.tensor, file.dtype)
        first = first._replace(number=number, agreed=agreed, causes=causes)
    return Result(
        file.path.name,
        entry["id"],
        entry["tier"],
        file.dtype,
        complaints,
        len(outputs),
        worst,
        first,
        entry["catches"],
    )


def check(folder, cases=(), tiers=(), dtypes=(), vectors=None, report=None):
    """Check a port's outputs.

    Parameters
    ----------
    folder : the port's outputs; see `port_files`
    cases : ids, or patterns with * and ?, of the cases that are expected; none: all
    tiers : whole numbers from 1 to 3; none: all
    dtypes : "float64", "float32"; none: those that there are outputs in
    vectors : folder of the reference vectors; None: those of this package
    report : function of a Result, called for each as it is found, or None

    Returns
    -------
    results : list of Result
    complaints : list of str, about the folder: files that are no case's, and cases of those expected that have none

    Raises
    ------
    ValueError
        For a folder, case or tier that is not there.
    """
    entries, source = load_manifest(vectors)
    expected = expected_cases(entries, cases, tiers)
    files, complaints = port_files(folder)
    unknown = [file for file in files if file.case not in entries]
    complaints += [f"{shown(file.path.name)}: no case is named {shown(file.case)!r}" for file in unknown]
    results = []
    for id in expected:
        for file in files:
            if file.case == id and file.dtype in (dtypes or DTYPES):
                results.append(check_case(file, entries[id], source))
                if report is not None:
                    report(results[-1])
    for dtype in dtypes or dict.fromkeys(result.dtype for result in results) or ["float64"]:
        have = {result.case for result in results if result.dtype == dtype}
        absent = [id for id in expected if id not in have]
        if absent:
            named = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
            complaints.append(f"{len(absent)} of {len(expected)} cases have no outputs in {dtype}: {named}")
    return results, complaints


def expected_cases(entries, cases, tiers):
    """The ids that patterns and tiers mean, in the manifest's order; see `check`."""
    for pattern in cases:
        if not any(fnmatch.fnmatchcase(id, pattern) for id in entries):
            raise ValueError(f"case: no case is named {pattern!r}; `reference list` shows them")
    for tier in tiers:
        if tier not in TIERS:
            raise ValueError(f"tier: got {tier}, expected 1, 2 or 3")
    meant = [id for id in entries if not cases or any(fnmatch.fnmatchcase(id, pattern) for pattern in cases)]
    meant = [id for id in meant if not tiers or entries[id]["tier"] in tiers]
    if not meant:
        raise ValueError("case: none of the cases named is in the tiers named")
    return meant


def compare_exports(folder, vectors=None):
    """A fresh export beside the vectors of the clone.

    Returns
    -------
    agree : bool, whether all tensors are within their tolerances
    text : how many are equal bit for bit, and what does not agree
    """
    hashes = [
        {(id, record["name"], dtype): record[dtype]["sha256"] for id, entry in load_manifest(where)[0].items()
         for record in entry["tensors"] for dtype in DTYPES}
        for where in (folder, vectors)
    ]  # fmt: skip
    equal = len(hashes[0].items() & hashes[1].items())
    results, complaints = check(folder, vectors=vectors)
    agree = exit_code(results, complaints) == 0
    said = "all are within their tolerances" if agree else "NOT all are within their tolerances"
    lines = [f"{equal} of {len(hashes[0])} tensors are bit for bit those of the vectors in this clone; {said}"]
    return agree, "\n".join([*lines, *complaints, *filter(None, map(format_result, results))])


# ---------------------------------------------------------------- the report


def exit_code(results, complaints):
    """0: all agree. 1: something diverges. 2: something cannot be used, or is not there."""
    if complaints or any(result.complaints for result in results) or not results:
        return 2
    return 1 if any(result.divergence for result in results) else 0


def format_result(result):
    """What is to be said of a case at once: complaints and a divergence; nothing where it agrees."""
    lines, found = list(result.complaints[:MOST_COMPLAINTS]), result.divergence
    if len(result.complaints) > MOST_COMPLAINTS:
        lines.append(f"{result.file}: {len(result.complaints) - MOST_COMPLAINTS} more of its tensors")
    if found is None:
        return "\n".join(lines)
    place = f"output {found.number} of {result.outputs}" if found.number else "an input, handed back as another"
    lines += [
        f"{result.file}: {found.tensor} diverges ({found.stage}, {place}; {found.agreed} before it agree)",
        f"    at [{', '.join(map(str, found.index))}] got {digits(found.got, found.expected)}; "
        f"max|Δ| / rms = {found.relative:.1e}; {found.entries_off} of {found.entries} entries are off",
        *(f"    likely cause: {cause}" for cause in found.causes),
        f"    this case is there against: {result.catches}",
    ]
    return "\n".join(lines)


def format_summary(results, complaints):
    """The count of each tier and precision, and how near to its tolerance the worst tensor came."""
    lines = list(complaints)
    for tier, about in TIERS.items():
        for dtype in DTYPES:
            here = [result for result in results if (result.tier, result.dtype) == (tier, dtype)]
            if here:
                there = {result.case for result in here}
                wrong = {result.case for result in here if result.complaints or result.divergence}
                (share, name), case = max((result.worst, result.case) for result in here)
                lines.append(
                    f"tier {tier}, {about}, {dtype}: {len(there - wrong)} of {len(there)} cases agree"
                    + (f"; at most {share:.2f} of a tolerance ({case}, {name})" if share else "")
                )
    diverged = next((result for result in results if result.divergence), None)
    if diverged:
        lines.append(f"the first to diverge: {diverged.file}, {diverged.divergence.tensor}")
    return "\n".join(lines)


def digits(got, expected):
    """Both numbers, with as many digits as show the difference."""
    shown = next((n for n in (9, 13) if f"{got:.{n}g}" != f"{expected:.{n}g}"), 17)
    return f"{got:.{shown}g}, expected {expected:.{shown}g}"


def to_dicts(results, complaints):
    """All of it for JSON, which has neither inf nor NaN: such a number becomes a text."""

    def plain(value):
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        return value

    rows = []
    for result in results:
        row = result._asdict() | {"worst": {"share": result.worst[0], "tensor": result.worst[1]}}
        if result.divergence is not None:
            row["divergence"] = {name: plain(value) for name, value in result.divergence._asdict().items()}
        rows.append(row)
    return {"exit_code": exit_code(results, complaints), "complaints": complaints, "results": rows}
