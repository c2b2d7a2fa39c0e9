"""The main job's parts: methods, runs, tuning, table, figures; on a small piece of the real data."""

import json
from dataclasses import replace

import numpy as np
import pytest
from lora_np.experiments.figures import draw_figures
from lora_np.experiments.fine_tune_run import TRUNCATION_RANKS, Run, fine_tune_run
from lora_np.experiments.main_job import format_table, table_row
from lora_np.experiments.runs.base import load_base
from lora_np.experiments.runs.sentiment import load_task
from lora_np.experiments.tune import DROPOUTS, RATES

from lora_np.experiments import tune as tuning
from lora_np.experiments.methods import BY_KEY, METHODS, SETTINGS, chosen_settings, starting_point
from lora_np.experiments.sweep import Ended
from lora_np.training import trainable_arrays

SMALL = {"epochs": 1, "limit": 40}


@pytest.fixture(scope="module")
def results():
    """Of several methods, and of the fastest two seeds."""
    keys = (("head", 0), ("head", 1), ("lora_qv_r1", 0), ("lora_qv_r8", 0), ("lora_all_r8", 0), ("full", 0))
    return [fine_tune_run(Run(key, seed, 1e-3, **SMALL)) for key, seed in keys]


def test_every_method_has_settings_chosen_on_validation():
    found = json.loads(SETTINGS.read_text(encoding="utf-8"))
    for method in METHODS:
        tried = {
            (entry["learning_rate"], entry["dropout"]): entry["validation_accuracy"].values()
            for entry in found["tried"][method.key]
        }
        assert set(tried) == {(rate, dropout) for rate in RATES[method.key] for dropout in DROPOUTS[method.key]}
        mean = {pair: sum(scores) / len(scores) for pair, scores in tried.items()}
        chosen = chosen_settings(method.key)
        assert mean[chosen["learning_rate"], chosen["dropout"]] == max(mean.values())


def one_score_a_run(run):
    assert not run.test and not run.analyse and run.seed >= 100
    return {"validation_accuracy": 0.5 + 0.1 * (run.learning_rate == 2e-4) + 0.2 * run.dropout * (run.seed == 101)}


def test_tuning_goes_on_where_it_stopped_and_takes_the_best_mean(tmp_path, monkeypatch):
    asked = []

    def sweep(function, runs, executor):
        asked.extend(runs)
        yield from (Ended(run, one_score_a_run(run)) for run in runs)

    monkeypatch.setattr(tuning, "sweep", sweep)
    out = tmp_path / "settings.json"
    one_seed = tuning.tune(["full"], out=out, report=lambda line: None)
    assert one_seed["chosen"] == {"full": {"learning_rate": 2e-4, "dropout": 0.0}}  # the first of two equal ones
    assert len(asked) == len(RATES["full"]) * len(DROPOUTS["full"])
    two_seeds = tuning.tune(["full", "head"], seeds=2, out=out, report=lambda line: None)
    assert two_seeds == json.loads(out.read_text(encoding="utf-8")) | {"failed": []}
    assert two_seeds["chosen"] == {
        "full": {"learning_rate": 2e-4, "dropout": 0.1},
        "head": {"learning_rate": 1e-3, "dropout": 0.0},
    }
    assert len(asked) == len(set(asked)) == 2 * (len(RATES["head"]) + 2 * len(RATES["full"]))
    with pytest.raises(ValueError, match="'tail'"):
        tuning.tune(["tail"], out=out)


def test_all_methods_start_from_the_same_model():
    base, config = load_base()
    starts = {key: starting_point(BY_KEY[key], base, config, 2, seed=3) for key in BY_KEY}
    head = starts["full"][0]["head.weight"]
    for key, (params, class_config, adapter) in starts.items():
        assert class_config == replace(config, n_classes=2)
        assert np.array_equal(params["head.weight"], head) or key == "scratch"
        if key != "scratch":
            assert all(params[name] is base[name] for name in base)
        assert "head.weight" in trainable_arrays(params, adapter)
    assert list(trainable_arrays(starts["head"][0], starts["head"][2])) == ["head.weight"]
    assert starts["full"][2] is None and set(starts["full"][0]) == set(base) | {"head.weight"}
    assert not np.array_equal(starts["scratch"][0]["tok_emb.weight"], base["tok_emb.weight"])


def test_lora_on_q_and_v_trains_less_than_one_per_cent_at_rank_8(results):
    row = next(result for result in results if result["method"] == "lora_qv_r8")
    C, layers = load_base()[1].d_model, load_base()[1].n_layers
    assert row["trainable"] == layers * 2 * 8 * (C + C) + 2 * C
    assert row["percent"] < 1.0


def test_a_run_is_a_function_of_its_settings(results):
    again = fine_tune_run(Run("lora_qv_r8", 0, 1e-3, **SMALL))
    before = next(r for r in results if r["method"] == "lora_qv_r8")
    for name in ("history", "test_accuracy", "validation_accuracy", "spectra", "saved_bytes"):
        assert again[name] == before[name], name


def test_methods_see_the_same_batches_in_the_same_order(results):
    first = {r["method"]: r["history"]["loss"][0] for r in results if r["seed"] == 0}
    # LoRA starts as the base and with the same head, and dropout's masks are the same too.
    assert first["lora_qv_r8"] == first["lora_all_r8"] == first["full"] == first["head"]
    assert first["full"] != next(r for r in results if r["seed"] == 1)["history"]["loss"][0]


def test_bytes_are_those_of_what_is_trained(results):
    for result in results:
        assert result["optimiser_bytes"] == 2 * 4 * result["trainable"]
        assert 4 * result["trainable"] < result["saved_bytes"] < 4 * result["trainable"] + 8192


def test_ranks_of_updates(results):
    for result in results:
        sigmas = [spectrum["singular_values"] for spectrum in result["spectra"].values()]
        ranks = {sum(s > 1e-4 * sigma[0] for s in sigma) for sigma in sigmas}
        if result["method"] == "head":
            assert not result["spectra"]
        elif result["method"] == "lora_qv_r1":
            assert ranks == {1} and len(result["spectra"]) == 2 * load_base()[1].n_layers
        elif result["method"] == "lora_all_r8":
            assert max(ranks) <= 8 and len(result["spectra"]) == 6 * load_base()[1].n_layers
        elif result["method"] == "full":
            assert min(ranks) > 8 and len(result["spectra"]) == 6 * load_base()[1].n_layers


def test_truncation_at_full_rank_is_the_trained_model(results):
    for result in (r for r in results if r["method"] == "full"):
        assert list(result["truncation"]) == [str(k) for k in TRUNCATION_RANKS]
        assert result["truncation"][str(load_base()[1].d_model)] == pytest.approx(result["test_accuracy"], abs=1 / 40)


def test_the_test_split_is_not_read_while_settings_are_chosen():
    result = fine_tune_run(Run("head", 0, 1e-3, test=False, analyse=False, **SMALL))
    assert "test_accuracy" not in result and "validation_accuracy" in result


@pytest.mark.slow
def test_table_and_figures_come_from_the_json(results, tmp_path):
    keys = list(dict.fromkeys(r["method"] for r in results))
    outcome = {
        "seeds": [0, 1],
        "runs": results,
        "table": [table_row(key, [r for r in results if r["method"] == key]) for key in keys],
        "baseline": {"test_accuracy": 0.7},
    }
    outcome = json.loads(json.dumps(outcome))  # what was written is what is drawn
    table = format_table(outcome)
    for result in results:
        assert BY_KEY[result["method"]].label in table and f"{result['trainable']:,}" in table
    accuracy = [100 * r["test_accuracy"] for r in results if r["method"] == "head"]
    assert f"{np.mean(accuracy):.1f} ± {np.std(accuracy, ddof=1):.1f}" in table
    paths = draw_figures(outcome, tmp_path)
    assert len(paths) == 4
    for path in paths:
        assert path.stat().st_size > 20_000 and path.read_bytes().startswith(b"\x89PNG")


def test_task_is_what_the_splits_hold():
    task = load_task()
    assert [len(part.labels) for part in task[:3]] == [6528, 1000, 1000]
    assert max(len(sequence) for sequence in task.train.sequences) <= 128
    rows = np.concatenate([batch.rows for batch in task.evaluation_batches("test")])
    assert sorted(rows) == list(range(1000))
