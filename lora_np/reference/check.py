"""The conformance checker: compare a port's outputs with the reference vectors, in the order of computation.

A single mistake makes nearly all later tensors incorrect. The first incorrect tensor is the most informative: all
tensors before it are correct, so the mistake is in the step that computes it.
"""

import fnmatch
import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..checked import shown
from ..formats import read_json
from .cases import DTYPES, TIERS
from .causes import likely_causes
from .manifest import MANIFEST, VECTORS, load_case, load_manifest
from .port_files import port_files, read_port_file
from .sections import sections_of
from .tolerances import allowed, shares

MOST_COMPLAINTS = 6  # the largest number of complaints that are printed for one case
DERIVED = 3  # mutations are tried only for this many diverging cases, because each case takes seconds


class Divergence(NamedTuple):
    """The first tensor of a case that differs from the reference."""

    tensor: str
    stage: str
    number: int  # its position among the case's outputs, counted from 1; 0 for an input that the port has changed
    agreed: int  # number of outputs before it, all of which agree
    index: tuple[int, ...]  # index of the entry with the largest error
    got: float
    expected: float
    relative: float  # max|Δ| / rms
    entries_off: int
    entries: int
    causes: list[str]  # likely causes
    seen: list[str]  # descriptions of the tensor
    sections: list[str]  # headings in SPEC.md


class Result(NamedTuple):
    """The result of checking one case in one precision."""

    file: str
    case: str
    tier: int
    dtype: str
    complaints: list[str]
    outputs: int
    worst: tuple[float, str]  # an agreeing tensor's largest error, as a share of its tolerance, and its name
    divergence: Divergence | None
    catches: str  # the mistakes that the case detects


# ---------------------------------------------------------------- the comparison


def check_case(path, dtype, entry, folder, derive=True):
    """Check the outputs at `path` and return a Result.

    `entry` is the case's entry in the manifest, and `folder` is the folder of the reference vectors.
    """
    reference = load_case(entry, dtype, folder)
    outputs = [record["name"] for record in entry["tensors"] if record["stage"] != "input"]
    got, complaints = read_port_file(path, reference, outputs)
    worst, divergence, agreed = (0.0, ""), None, 0
    for record in entry["tensors"]:  # inputs first
        name = record["name"]
        if name not in got:
            continue
        share = shares(got[name], reference[name], *allowed(record, dtype))
        if (share > 1).any():
            number = outputs.index(name) + 1 if name in outputs else 0
            errors = np.where(share > 1, shares(got[name], reference[name]), -1.0)
            index = tuple(map(int, np.unravel_index(np.argmax(errors), errors.shape)))
            rms = record[dtype]["rms"]
            relative = float(errors.max()) / rms if rms else math.inf
            numbers = float(got[name][index]), float(reference[name][index]), relative, int((share > 1).sum())
            about = *likely_causes(entry, reference, got, name, dtype, derive), sections_of(entry, name)
            divergence = Divergence(name, record["stage"], number, agreed, index, *numbers, share.size, *about)
            break
        if name in outputs:
            agreed += 1
            worst = max(worst, (float(share.max(initial=0.0)), name))
    about = path.name, entry["id"], entry["tier"], dtype
    return Result(*about, complaints, len(outputs), worst, divergence, entry["catches"])


def check(folder, cases=(), tiers=(), dtypes=(), vectors=None, report=None, first=False):
    """Check a port's outputs.

    Parameters
    ----------
    folder : folder of the port's outputs; see `port_files`
    cases : ids of the expected cases, or patterns with * and ?; all cases by default
    tiers : list of int, keys of TIERS; all tiers by default
    dtypes : "float64", "float32"; by default the precisions in which the port has outputs
    vectors : folder of the reference vectors; None for those of this package
    report : function to call with each Result, or None
    first : bool, whether to stop at the first case that does not agree

    Returns
    -------
    results : list of Result
    complaints : list of str, about files that match no case and about expected cases without outputs

    Raises
    ------
    ValueError
        If a folder, case or tier does not exist.
    """
    entries, source = load_manifest(vectors)
    expected = expected_cases(entries, cases, tiers)
    files, complaints = port_files(folder)
    unknown = [(path.name, case) for path, (case, _) in files.items() if case not in entries]
    complaints += [f"{shown(name)}: no case is named {shown(case)!r}" for name, case in unknown]
    results = []
    for id in expected:
        for path, (case, dtype) in files.items():
            if case == id and dtype in (dtypes or DTYPES):
                derive = sum(result.divergence is not None for result in results) < DERIVED
                results.append(check_case(path, dtype, entries[id], source, derive))
                if report is not None:
                    report(results[-1])
                if first and exit_code(results, []):
                    return results, []
    there = [(result.case, result.dtype) for result in results]
    for dtype in dtypes or dict.fromkeys(dtype for _, dtype in there) or ["float64"]:
        absent = [id for id in expected if (id, dtype) not in there]
        if absent:
            complaints.append(f"{len(absent)} of {len(expected)} cases have no outputs in {dtype}: {', '.join(absent)}")
    return results, complaints


def expected_cases(entries, patterns, tiers):
    """The ids of the cases that match a pattern and are in one of the tiers, in the manifest's order."""
    if not TIERS.keys() >= set(tiers):
        raise ValueError(f"tier: got {', '.join(map(str, tiers))}, expected any of {', '.join(map(str, TIERS))}")
    named = set()
    for pattern in patterns or ["*"]:
        ids = fnmatch.filter(entries, pattern)
        if not ids:
            raise ValueError(f"case: no case matches {pattern!r}; `reference list` shows all cases")
        named.update(ids)
    expected = [id for id, entry in entries.items() if id in named and (not tiers or entry["tier"] in tiers)]
    if not expected:
        raise ValueError("case: none of the given cases is in the given tiers")
    return expected


def compare_exports(folder):
    """Compare a new export with this clone's vectors.

    Returns
    -------
    agree : bool, whether all tensors are within their tolerances
    text : str, the number of bit-identical tensors, and a report on the tensors that do not agree
    """
    fresh, stored = (hashes(load_manifest(vectors)[0].values()) for vectors in (folder, None))
    results, complaints = check(folder)
    agree = exit_code(results, complaints) == 0
    verdict = "all are within their tolerances" if agree else "NOT all are within their tolerances"
    equal = f"{len(fresh & stored)} of {len(fresh)} tensors are bit-identical to the vectors in this clone"
    return agree, "\n".join([f"{equal}; {verdict}", *complaints, *filter(None, map(format_result, results))])


def hashes(cases):
    """The set of (case, tensor, precision, hash) for all tensors of a manifest's cases."""
    records = [(entry["id"], record) for entry in cases for record in entry["tensors"]]
    return {(id, record["name"], dtype, record[dtype]["sha256"]) for id, record in records for dtype in DTYPES}


# ---------------------------------------------------------------- the report


def format_vectors(vectors=None):
    """Describe the vectors' origin on one line: their folder, the version that made them, and their short hash."""
    folder = VECTORS if vectors is None else Path(vectors)
    manifest = read_json(folder / MANIFEST)  # already validated by `check`
    made, cases = manifest.get("generator", {}), manifest["cases"]
    digest = hashlib.sha256("".join(sorted(map(repr, hashes(cases)))).encode()).hexdigest()[:12]
    version, commit = made.get("lora_np", "?"), (made.get("commit") or "?")[:12]
    return f"vectors: {len(cases)} cases, {digest}, of lora_np {version} at {commit}, in {folder}"


def exit_code(results, complaints):
    """Return 0 if all outputs agree, 1 if any diverges, and 2 if any is missing or unusable."""
    if complaints or any(result.complaints for result in results) or not results:
        return 2
    return 1 if any(result.divergence for result in results) else 0


def format_result(result):
    """Format a case's complaints and divergence as text; "" if the case agrees."""
    lines, first = list(result.complaints[:MOST_COMPLAINTS]), result.divergence
    if len(result.complaints) > MOST_COMPLAINTS:
        lines.append(f"{result.file}: {len(result.complaints) - MOST_COMPLAINTS} more complaints")
    if first is None:
        return "\n".join(lines)
    place = f"output {first.number} of {result.outputs}" if first.number else "an input, which the port has changed"
    lines += [
        f"{result.file}: {first.tensor} diverges ({first.stage}, {place}; {first.agreed} before it agree)",
        f"    at [{', '.join(map(str, first.index))}] got {digits(first.got, first.expected)}; "
        f"max|Δ| / rms = {first.relative:.1e}; {first.entries_off} of {first.entries} entries are off",
        *(f"    seen: {sentence}" for sentence in first.seen),
        *(f"    likely cause: {cause}" for cause in first.causes),
        f"    SPEC.md, section {'; '.join(first.sections)}",
        f"    this case tests for: {result.catches}",
    ]
    return "\n".join(lines)


def format_summary(results, complaints):
    """Format the number of agreeing cases, and the largest error relative to its tolerance, per tier and precision."""
    lines = list(complaints)
    for tier, about in TIERS.items():
        for dtype in DTYPES:
            here = [result for result in results if (result.tier, result.dtype) == (tier, dtype)]
            if here:
                cases = {result.case for result in here}
                wrong = {result.case for result in here if result.complaints or result.divergence}
                (share, name), case = max((result.worst, result.case) for result in here)
                lines.append(
                    f"tier {tier}, {about}, {dtype}: {len(cases - wrong)} of {len(cases)} cases agree"
                    + (f"; at most {share:.2f} of the tolerance used ({case}, {name})" if share else "")
                )
    diverged = next((result for result in results if result.divergence), None)
    if diverged:
        lines.append(f"the first to diverge: {diverged.file}, {diverged.divergence.tensor}")
    return "\n".join(lines)


def digits(got, expected):
    """Format two numbers with enough digits to show the difference between them."""
    n_digits = next((n for n in (9, 13) if f"{got:.{n}g}" != f"{expected:.{n}g}"), 17)
    return f"{got:.{n_digits}g}, expected {expected:.{n_digits}g}"


def to_dicts(results, complaints):
    """Convert results and complaints to plain dicts for JSON; inf and NaN, which JSON lacks, become strings."""
    rows = []
    for result in results:
        row = result._asdict() | {"worst": {"share": result.worst[0], "tensor": result.worst[1]}}
        if result.divergence is not None:
            fields = result.divergence._asdict()
            infinite = [name for name in ("got", "expected", "relative") if not math.isfinite(fields[name])]
            row["divergence"] = fields | {name: str(fields[name]) for name in infinite}
        rows.append(row)
    return {"exit_code": exit_code(results, complaints), "complaints": complaints, "results": rows}
