"""A dialect without forgetting: what a language model gains in a new domain, and what it loses in its old one.

The claim (Biderman et al. 2024): LoRA learns less and forgets less than full fine-tuning.

The base has read long IMDb reviews. It is taught the dialect of critics' snippets, and that of software licences,
by full fine-tuning and by LoRA on all linear layers at several ranks. Each model's perplexity is measured on the test
part of its new domain and on IMDb test reviews. An adapter can be taken off again; then the base is what it was, bit
for bit, which every run of LoRA checks.
"""

import math
import time
from pathlib import Path

import numpy as np

from ..data import corpus_digest, load_licences
from ..formats import check_folder, read_json, write_json, write_text
from ..training import blas_threads, language_loss
from .dialect_figure import draw_dialect
from .dialect_run import METHODS, DialectRun, dialect_run, label, load_domain
from .dialect_samples import format_samples, samples
from .fine_tune_run import load_base
from .main_job import versions
from .sweep import report_all

SETTINGS = Path(__file__).parent / "dialect_settings.json"  # written by `experiment dialect --tune`
DOMAINS = ("critics", "licences")
QUICK = {"limit": 2048}
QUICK_METHODS = ("full", "lora_r4")
# Each grid reaches past both sides of its best, or to where two rates do as well.
RATES = {
    "critics": {
        "full": (2e-4, 4e-4, 8e-4),
        "lora_r1": (4e-3, 8e-3, 1.6e-2),
        "lora_r4": (4e-3, 8e-3, 1.6e-2),
        "lora_r16": (2e-3, 4e-3, 8e-3),
        "lora_r64": (1e-3, 2e-3, 4e-3),
    },
    "licences": {
        "full": (8e-4, 1.6e-3, 3.2e-3),
        "lora_r1": (1.6e-2, 3.2e-2, 6.4e-2),
        "lora_r4": (8e-3, 1.6e-2, 3.2e-2),
        "lora_r16": (8e-3, 1.6e-2, 3.2e-2),
        "lora_r64": (4e-3, 8e-3, 1.6e-2),
    },
}
TUNE_SEED = 100  # apart from the experiment's, which count from 0


def run(seeds=5, quick=False, out="figures", executor=None, report=print):
    """Carry out the experiment: table, `dialect.json`, the figure and the samples.

    Parameters
    ----------
    seeds : int, how many
    quick : bool, one seed of two methods on few tokens: to see that it works, not to compare
    out : folder to write to
    executor : concurrent.futures.Executor that carries out the runs, see `sweep`; None: one process a core
    report : function of a line of text

    Returns
    -------
    dict, what the JSON holds; "failed" lists the runs that failed
    """
    if seeds < 1:
        raise ValueError(f"seeds: got {seeds}, expected at least 1")
    check_folder(out, "out")
    out, started = Path(out), time.perf_counter()
    seeds, methods, settings = (1, QUICK_METHODS, QUICK) if quick else (seeds, METHODS, {})
    rates = read_json(SETTINGS)["chosen"]
    runs = [
        DialectRun(domain, method, seed, rates[domain][method], **settings)
        for seed in range(seeds)
        for domain in DOMAINS
        for method in methods  # full fine-tuning, the longest, first
    ]
    kept = out / "dialect.unfinished.jsonl"
    results, failed, resumed = carry_out(runs, executor, kept, report)
    results.sort(key=lambda r: (DOMAINS.index(r["domain"]), methods.index(r["method"]), r["seed"]))
    checked = [r["removed_bit_for_bit"] and r["base_untouched"] for r in results if r["method"] != "full"]
    base, config = load_base()
    with blas_threads(1):
        parts = {name: load_domain(name, settings.get("limit")) for name in (*DOMAINS, "reviews")}
        of_base = {name: language_loss(base, config, part.test) for name, part in parts.items()}
    rows = table(results)
    outcome = {
        "command": f"python -m lora_np experiment dialect --seeds {seeds}" + " --quick" * quick,
        "claim": "LoRA learns less and forgets less than full fine-tuning (Biderman et al. 2024)",
        "quick": quick,
        "seeds": list(range(seeds)),
        "test_tokens": {name: len(part.test) for name, part in parts.items()},
        "licences_sha256": corpus_digest(load_licences()),
        "base": of_base,
        "table": rows,
        "verdict": verdict(rows),
        "adapter_taken_off": {"runs": len(checked), "bit_for_bit": sum(checked)},
        "versions": versions(),
        "failed": failed,
        "resumed": resumed,  # runs whose results an earlier start had left; "seconds" is without their time
        "samples": samples(),
        "runs": results,
    }
    outcome["seconds"] = time.perf_counter() - started
    report("\n" + format_table(rows, of_base))
    report(f"adapter taken off again: the base's logits bit for bit in {sum(checked)} of {len(checked)} runs")
    report("\n".join(f"{domain}: {text}" for domain, text in outcome["verdict"].items()))
    write_json(out / "dialect.json", outcome)
    write_text(out / "dialect_samples.md", format_samples(outcome["samples"]))
    path = draw_dialect(outcome, out)
    report(f"\n{outcome['seconds']:.0f} s in all; {path}, {out / 'dialect_samples.md'}")
    if not failed:
        kept.unlink(missing_ok=True)
    if not all(checked):
        raise ValueError("an adapter that was taken off did not leave the base as it was, which every one should")
    return outcome


def carry_out(runs, executor, kept, report):
    """All runs, a line for each; see `report_all`."""
    return report_all(
        dialect_run,
        runs,
        executor,
        kept,
        report,
        name=lambda run: f"{run.domain:<9} {run.method:<9} seed {run.seed:<3}",
        measured=lambda r: f"validation {r['validation_loss']:.3f} nats   ({r['seconds']:.0f} s)",
    )


def table(results):
    """A row for each domain and method: perplexities, mean and standard deviation over seeds."""
    rows = []
    for domain in DOMAINS:
        for method in METHODS:
            found = [r for r in results if (r["domain"], r["method"]) == (domain, method)]
            if not found:
                continue
            row = {"domain": domain, "method": method, "learning_rate": found[0]["learning_rate"]}
            row |= {"trainable": found[0]["trainable"], "percent": found[0]["percent"]}
            for part in ("new", "old"):
                perplexity = np.exp([r[part] for r in found])
                row[f"{part}_mean"] = float(perplexity.mean())
                row[f"{part}_std"] = float(perplexity.std(ddof=1)) if len(found) > 1 else None
            rows.append(row)
    return rows


def verdict(rows):
    """Domain -> what became of the claim there: whether LoRA learns less, and at which ranks it forgets less.

    Of two means those count as different that are further apart than the sum of their standard deviations.
    """
    found = {}
    for domain in DOMAINS:
        of_domain = {row["method"]: row for row in rows if row["domain"] == domain}
        full, lora = of_domain.get("full"), {m: row for m, row in of_domain.items() if m != "full"}
        if full is None or full["new_std"] is None:
            found[domain] = "cannot tell from one seed"
            continue

        def compare(row, part, full=full):
            gap = row[f"{part}_mean"] - full[f"{part}_mean"]
            noise = (row[f"{part}_std"] or 0.0) + (full[f"{part}_std"] or 0.0)
            return "as much" if abs(gap) <= noise else "less" if (gap > 0) == (part == "new") else "more"

        learns = {label(method): compare(row, "new") for method, row in lora.items()}
        forgets = {label(method): compare(row, "old") for method, row in lora.items()}
        holds = set(learns.values()) == set(forgets.values()) == {"less"}
        text = "; ".join(f"{name} learns {learns[name]}, forgets {forgets[name]}" for name in learns)
        found[domain] = ("holds here: " if holds else "does not hold here: ") + text
    return found


def format_table(rows, of_base):
    """The table as text."""
    head = f"{'domain':<10}{'method':<18}{'trained':>11}{'new domain':>16}{'reviews':>16}"
    lines = ["perplexity (mean ± standard deviation over seeds)", head, "-" * len(head)]
    old = math.exp(of_base["reviews"])
    for domain in DOMAINS:
        lines.append(f"{domain:<10}{'base':<18}{'':>11}{math.exp(of_base[domain]):>16.1f}{old:>16.1f}")
        for row in rows:
            if row["domain"] == domain:
                cells = []
                for part in ("new", "old"):
                    std = row[f"{part}_std"]
                    cells.append(f"{row[f'{part}_mean']:.1f}" + (f" ± {std:.1f}" if std is not None else ""))
                lines.append(
                    f"{'':<10}{label(row['method']):<18}{row['trainable']:>11,}{cells[0]:>16}{cells[1]:>16}"
                )
    return "\n".join(lines)


def tune(executor=None, report=print, out=SETTINGS):
    """Choose each method's learning rate by the validation loss in the new domain, at one seed; write the JSON.

    What the file holds already is not run again; to start over, delete it.
    """
    tried = read_json(out)["tried"] if Path(out).exists() else {}
    runs = [
        DialectRun(domain, method, TUNE_SEED, rate, test=False)
        for domain in DOMAINS
        for method in METHODS
        for rate in RATES[domain][method]
        if f"{rate:g}" not in tried.get(domain, {}).get(method, {})
    ]
    kept = Path(out).with_suffix(".unfinished.jsonl")
    results, failed, _ = carry_out(runs, executor, kept, report) if runs else ([], [], 0)
    if failed:
        raise ValueError(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again")
    for r in results:
        losses = tried.setdefault(r["domain"], {}).setdefault(r["method"], {})
        losses[f"{r['learning_rate']:g}"] = round(r["validation_loss"], 4)
    tried = {
        domain: {m: dict(sorted(tried[domain][m].items(), key=lambda entry: float(entry[0]))) for m in METHODS}
        for domain in DOMAINS
    }
    chosen = {
        domain: {method: float(min(losses, key=losses.get)) for method, losses in methods.items()}
        for domain, methods in tried.items()
    }
    write_json(out, {"command": "python -m lora_np experiment dialect --tune", "chosen": chosen, "tried": tried})
    kept.unlink(missing_ok=True)
    return chosen
