"""Measure `finetune` on the text sets of `text_sets.py`; print a Markdown table.

Usage: python tests/text_set_results.py FOLDER [--settings minilm pretrained minutes] [--jobs N] [--sets NAME …]

FOLDER has the csv files. Each run (a set, settings and a seed) has its own process, which writes
FOLDER/results/SETTINGS/NAME_SEED.json and, beside it, the model; runs that are there are not repeated. With --jobs,
several runs share the cores, so their times are no longer those of one run alone.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lora_np import FinetuneSettings, LabelledTable, finetune
from lora_np.data import encode_labels
from lora_np.tasks.classifier import class_probabilities, load_classifier
from lora_np.tasks.report import lead, macro_f1, text_keys
from lora_np.training import available_cores

SEEDS = 0, 1, 2
SETTINGS = {"minilm": {}, "pretrained": {}, "minutes": {"minutes": 10}}  # "minutes": a search


def measure(path, kind, seed, threads):
    """Fine-tune on one set, and store time, memory and the predictions for the test texts."""
    csv = path.parents[2] / f"{path.stem.rpartition('_')[0]}.csv"
    data, base = LabelledTable(csv, "text", "label"), {"minutes": None}.get(kind, kind)
    settings, started = FinetuneSettings(base=base, seed=seed, threads=threads), time.perf_counter()
    results = finetune(data, path.with_suffix(""), settings, **SETTINGS[kind])
    seconds, memory = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    splits, labels = data.split(seed)[0], results["labels"]
    encoded = [(None, encode_labels(split.labels, labels)) for split in splits]
    answered = class_probabilities(load_classifier(path.with_suffix("")), splits.test.texts).argmax(axis=1)
    stored = {"seconds": seconds, "MB": memory, "validation": results["validation"], "search": results.get("search")}
    stored |= {"keys": text_keys(splits.test.texts).tolist(), "true": encoded[2][1].tolist()}
    stored |= {"model": answered.tolist(), "tf-idf": data.word_answers(splits, encoded)["tf-idf"].tolist()}
    path.write_text(json.dumps(stored))


def f1(run, name):
    cells, counts = np.unique(np.stack([run["true"], run[name]]), axis=1, return_counts=True)
    return 100 * macro_f1(*cells, counts)


def difference(runs, others, name):
    """The macro-F1 of runs minus that of `name` in others, with its interval, on all seeds' different test texts."""
    pooled = [
        np.concatenate([np.array(run[key]) for run in of])
        for of, key in ((runs, "keys"), (runs, "true"), (runs, "model"), (others, name))
    ]
    first = np.unique(pooled[0], return_index=True)[1]
    found, low, high = (100 * x for x in lead(*(values[first] for values in pooled[1:]))["macro_f1"])
    return f"{found:+.1f} [{low:+.1f}, {high:+.1f}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["minilm", "pretrained"])
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--one", nargs=3, metavar=("PATH", "SETTINGS", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = max(1, available_cores() // options.jobs)
    if options.one:
        return measure(Path(options.one[0]), options.one[1], int(options.one[2]), threads)
    names = options.sets or sorted(file.stem for file in options.folder.glob("*.csv"))
    runs = {}
    for kind in options.settings:
        for name in names:
            for seed in SEEDS:
                runs[kind, name, seed] = options.folder / "results" / kind / f"{name}_{seed}.json"

    def run(key):
        kind, _, seed = key
        runs[key].parent.mkdir(parents=True, exist_ok=True)
        if not runs[key].exists():
            command = [sys.executable, __file__, str(options.folder), "--jobs", str(options.jobs), "--one"]
            subprocess.run([*command, str(runs[key]), kind, str(seed)], check=True, stderr=subprocess.DEVNULL)
            print(*key, flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, sorted(runs, key=lambda key: key[2])))
    print("| set | settings | macro-F1 % | tf-idf | difference, 95 % interval | − default | s | MB |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name in names:
        of = {kind: [json.loads(runs[kind, name, seed].read_text()) for seed in SEEDS] for kind in options.settings}
        for kind, results in of.items():
            mean = {key: np.mean([f1(result, key) for result in results]) for key in ("model", "tf-idf")}
            cost = {key: np.mean([result[key] for result in results]) for key in ("seconds", "MB")}
            against = "" if kind != "minutes" or "minilm" not in of else difference(results, of["minilm"], "model")
            print(
                f"| {name} | {kind} | {mean['model']:.1f} | {mean['tf-idf']:.1f} | "
                f"{difference(results, results, 'tf-idf')} | {against} | {cost['seconds']:.0f} | {cost['MB']:,.0f} |"
            )


if __name__ == "__main__":
    main()
