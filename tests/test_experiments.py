"""The main job, on a small piece of the real data: its runs, table, figures and command."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from lora_np import cli
from lora_np.experiments import gallery, laboratory, sweep
from lora_np.experiments.drawing import as_png, colour
from lora_np.experiments.evidence import interval
from lora_np.experiments.methods import METHODS
from lora_np.experiments.recipes import main_job
from lora_np.experiments.runs import load_base
from lora_np.experiments.runs.classify import ClassifyRun, classify_run
from lora_np.formats import read_json

SMALL = {"epochs": 1, "limit": 40}
KEYS = ("head", "qv_r1", "qv_r8", "vomlp_r4", "all_r8", "full", "scratch")


@pytest.fixture(scope="module")
def small_job():
    """The main job on few snippets, with made-up times and baseline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(main_job.QUICK, "pretrained", SMALL)
        patch.setattr(main_job, "QUICK_KEYS", KEYS)
        patch.setattr(main_job, "tfidf_baseline", lambda limit: ({"test_accuracy": 0.7}, np.arange(limit) % 10 < 7))
        times = lambda repeats, keys, base: {key: {"seconds": 0.1} for key in keys}  # noqa: E731
        patch.setattr(main_job, "compare_step_times", times)
        yield


@pytest.fixture(scope="module")
def job(small_job, tmp_path_factory):
    """(folder, outcome, lines) of a main job."""
    folder, lines = tmp_path_factory.mktemp("job"), []
    with ThreadPoolExecutor(1) as executor:
        where = folder / "out", folder / "store", executor, lines.append
        return folder, laboratory.experiment("main_job", 5, True, *where), lines


@pytest.mark.slow
def test_the_main_job_writes_its_numbers_and_figures(job):
    folder, outcome, lines = job
    numbers = read_json(folder / "out/main_job.json")
    assert numbers == json.loads(json.dumps(outcome)) and outcome["seeds"] == [0, 1]
    pngs = {f"{name}.png" for name in main_job.FIGURES["pretrained"]}
    assert {path.name for path in (folder / "out").iterdir()} == pngs | {"README.md", "main_job.json"}
    for name, draw in main_job.FIGURES["pretrained"].items():
        before = (folder / "out" / f"{name}.png").read_bytes()
        assert as_png(draw, numbers) == before and len(before) > 20_000
    assert sum(line.startswith("  [") and "test accuracy" in line for line in lines) == 2 * len(KEYS)
    assert [row["method"] for row in outcome["rows"]] == list(KEYS)
    table = main_job.table(outcome)
    for row, cells in zip(outcome["rows"], table[1:]):
        mean, low, high = interval(row["accuracy"])
        assert cells[0] == METHODS[row["method"]].label and f"{row['trainable']:,}" in cells
        assert f"{mean:.1f} [{low:.1f}, {high:.1f}]" in cells
    assert any("\n".join(gallery.markdown(table)) in line for line in lines)
    assert table[-1][0].startswith("tf-idf") and len(table) == len(KEYS) + 2


@pytest.mark.slow
def test_the_numbers_of_the_main_job(job):
    """Bytes are those of what was trained; spectra have the adapters' ranks; an update of full rank is the whole."""
    outcome = job[1]
    rows = {row["method"]: row for row in outcome["rows"]}
    C, layers = load_base()[1].d_model, load_base()[1].n_layers
    assert rows["qv_r8"]["trainable"] == layers * 2 * 8 * (C + C) + 2 * C and rows["qv_r8"]["percent"] < 1.0
    for row in rows.values():
        assert row["optimiser_bytes"] == 2 * 4 * row["trainable"]
        assert 4 * row["trainable"] < row["saved_bytes"] < 4 * row["trainable"] + 8192
    spectra = outcome["spectra"]
    assert list(spectra) == ["full", "all_r8", "qv_r8"] and set(spectra["qv_r8"]) == {"q_proj", "v_proj"}
    for key, n in (("full", C), ("all_r8", 8), ("qv_r8", 8)):
        for of_kind in spectra[key].values():
            assert np.shape(of_kind["sigma"]) == (n, 2) and of_kind["sigma"][0] == [1.0, 1.0]
            assert len(of_kind["ranks"]) == layers
            for stable, effective, rank_90 in of_kind["ranks"]:
                assert 1.0 <= stable <= effective <= n and rank_90 <= n
    assert outcome["cut"][str(C)] == pytest.approx(rows["full"]["accuracy"], abs=100 / 40)
    assert list(outcome["cut"]) == [str(k) for k in main_job.CUTS]
    first = {key: outcome["curves"][key]["loss"][0][0] for key in outcome["curves"]}
    assert len(set(first.values())) == 1  # the same batch, the same start
    assert outcome["asides"][-1]["values"] == [
        a - b for a, b in zip(rows["full"]["accuracy"], rows["scratch"]["accuracy"])
    ]


def test_the_command_of_the_main_job(small_job, tmp_path, monkeypatch, capsys):
    """It reports what failed, keeps the rest, and tries what failed again; a JSON that is a folder is refused."""
    monkeypatch.setattr(sweep, "LocalProcesses", lambda jobs: InThread())
    monkeypatch.setattr(main_job, "QUICK_KEYS", ("head", "full"))
    asked = []

    def fails(run):
        asked.append(run)
        if run.adapter is None and run.seed == 1:
            raise OSError("no room")
        return classify_run(replace(run, limit=8))

    monkeypatch.setattr(ClassifyRun, "carry_out", fails)
    command = ["run", "--quick", "--out", str(tmp_path / "out"), "--store", str(tmp_path / "store"), "--jobs", "1"]
    assert cli.main(command) == 1
    said = capsys.readouterr().out
    assert "FAILED: OSError: no room" in said and "1 of 4 runs failed" in said and not (tmp_path / "out").exists()
    assert [run.adapter is None for run in asked] == [True, True, False, False]  # the long ones first
    assert cli.main([*command, "--json", str(tmp_path)]) == 2
    assert f"{tmp_path} is a folder, expected a file" in capsys.readouterr().err
    assert cli.main(command) == 1 and len(asked) == 5


class InThread(ThreadPoolExecutor):
    def __init__(self):
        super().__init__(1)

    def stop(self):
        self.shutdown()


def test_a_method_has_one_colour_at_every_rank():
    assert colour("qv_r8") == colour("lora_qv_r64") == colour("lora_qv") != colour("all_r8")
    assert len({colour(key) for key in ("full", "qv_r1", "vomlp_r4", "all_r1", "head", "scratch")}) == 6
