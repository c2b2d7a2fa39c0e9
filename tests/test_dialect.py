"""The dialect experiment: its texts, its runs, its choice of learning rates, its figure and its samples."""

import dataclasses
import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, init_adapter
from lora_np.data import corpus_digest, load_licences, read_texts, text_digest
from lora_np.data.licences import distinct_paragraphs, licence_files, paragraphs
from lora_np.experiments import dialect, dialect_run, dialect_samples
from lora_np.experiments.dialect_figure import draw_dialect, round_numbers
from lora_np.experiments.dialect_run import METHODS, DialectRun, adapter_of
from lora_np.formats import load_model, read_json, shipped_adapters
from lora_np.model import ModelConfig, initial_params
from lora_np.training.language import language_loss, train_language

SENTENCE = "the copyright holder grants to any person a free and perpetual licence to use this software for any purpose"


# ---------------------------------------------------------------- licence texts


def test_licences_are_in_fixed_parts_without_repeats():
    parts, again = load_licences(), load_licences()
    assert parts == again and corpus_digest(parts) == corpus_digest(again)
    digests = [{text_digest(text) for text in part} for part in parts]
    assert sum(map(len, digests)) == len(set().union(*digests)) == sum(map(len, parts))
    assert len(parts.train) > len(parts.test) > len(parts.validation) > 0
    text = " ".join(parts.train)
    assert "warranty" in text.lower() and "  " not in text and "\n" not in text


def test_paragraphs_lose_their_frames():
    text = "# One line\n# and its second.\n#\n# /* Another */\n\n  * a list\n\n\n----\n"
    assert list(paragraphs(text)) == ["One line and its second.", "Another", "a list"]


def test_what_is_nearly_a_repeat_is_left_out(tmp_path):
    """A licence that quotes another with a name changed is no new text."""
    words = SENTENCE.split()
    texts = {
        "a.txt": f"{SENTENCE}\n\ntoo short to be kept\n",
        "b.txt": f"{SENTENCE.replace('software', 'font')}\n\n{' '.join(reversed(words))}\n",
        "c.txt": f"{SENTENCE.upper()}!\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    kept = distinct_paragraphs([tmp_path / name for name in texts])
    assert list(kept.values()) == [SENTENCE, " ".join(reversed(words))]


def test_pythons_own_licence_comes_first():
    files = licence_files()
    assert files and all(path.is_file() for path in files)
    assert len(files) == len(set(files))


def test_texts_of_a_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"one\nstill one\r\n \r\ntwo\n\n\n\nthree\n")
    assert read_texts(path) == ["one still one", "two", "three"]
    path.write_text("\n a  b \nc\n")
    assert read_texts(path) == ["a b", "c"]


# ---------------------------------------------------------------- training on a token stream


@pytest.fixture
def tiny():
    config = ModelConfig(50, 8, 12, 1, 2, 16)
    return initial_params(config, np.random.default_rng(0)), config


def test_a_token_stream_is_learnt(tiny):
    """What comes back is the best by the validation loss; what else is asked for is noted each time."""
    params, config = tiny
    tokens = np.tile(np.arange(10, 20), 40)
    settings = AdapterConfig(r=2, targets=("all-linear",), train_head=False)
    for start in (None, init_adapter(params, settings, np.random.default_rng(0))):
        state = train_language(
            params, config, start, tokens, tokens[:50], learning_rate=2e-2, epochs=4, batch_size=8,
            also=lambda model, adapter: {"more": 1.5},
        )  # fmt: skip
        assert state.history["eval_loss"].min() < language_loss(params, config, tokens[:50]) - 0.05
        assert set(state.history["eval_more"]) == {1.5} and len(state.history["eval_loss"]) >= 8
        again = train_language(
            params, config, start, tokens, tokens[:50], learning_rate=2e-2, epochs=4, batch_size=8
        )
        assert all(np.array_equal(again.best[name], state.best[name]) for name in state.best)


def test_perplexity_of_a_model_that_knows_nothing(tiny):
    params, config = tiny
    flat = {**params, "tok_emb.weight": np.zeros_like(params["tok_emb.weight"])}
    assert math.exp(language_loss(flat, config, np.arange(30))) == pytest.approx(50, rel=1e-6)


# ---------------------------------------------------------------- the experiment


def test_a_run_leaves_the_base_as_it_was(tiny, monkeypatch):
    """With a tiny model in the shipped one's place: everything that a run promises to look at."""
    params, config = tiny
    monkeypatch.setattr(dialect_run, "load_base", lambda: (params, config))
    tokens = np.random.default_rng(0).integers(0, 50, 400)
    part = dialect_run.Domain(tokens, tokens[:60], tokens[60:160])
    monkeypatch.setattr(dialect_run, "load_domain", lambda name, limit=None: part)
    before = {name: array.copy() for name, array in params.items()}
    for method in ("full", "lora_r4"):
        result = dialect_run.dialect_run(DialectRun("critics", method, 0, 1e-2))
        assert result["base_untouched"] and result["removed_bit_for_bit"] == (None if method == "full" else True)
        assert len(result["history"]["eval_old"]) == len(result["history"]["eval_loss"])
        json.dumps(result)
    assert all(np.array_equal(params[name], before[name]) for name in params)
    assert "new" not in dialect_run.dialect_run(DialectRun("critics", "lora_r1", 0, 1e-2, test=False))


def test_removal_is_really_compared(tiny, random_adapter):
    """An adapter that changes nothing, or a base that was changed, is found out."""
    params, config = tiny
    adapter = random_adapter(params, train_head=False)
    tokens = np.arange(8)
    assert dialect_run.removal_restores(params, params, config, adapter, tokens) is True
    nothing = adapter._replace(weights={name: 0 * array for name, array in adapter.weights.items()})
    assert dialect_run.removal_restores(params, params, config, nothing, tokens) is False
    changed = params | {"ln_f.bias": params["ln_f.bias"] + np.float32(1e-6)}
    assert dialect_run.removal_restores(changed, params, config, adapter, tokens) is False


def made_up(run):
    """A run's result without the run: full fine-tuning learns more, high ranks forget more."""
    rng = np.random.default_rng(run.seed)
    rank = 200 if run.method == "full" else int(run.method.removeprefix("lora_r"))
    new, old = 4.5 - 0.1 * math.log(1 + rank) + 0.01 * rng.random(), 4.3 + 0.05 * math.log(1 + rank)
    return {
        "domain": run.domain, "method": run.method, "seed": run.seed, "learning_rate": run.learning_rate,
        "trainable": 1000 * rank, "percent": 1.0, "validation_loss": new + abs(math.log(run.learning_rate / 4e-3)),
        "history": {}, "base_untouched": True, "new": new, "old": old, "removed_bit_for_bit": True, "seconds": 0.0,
    }  # fmt: skip


@pytest.fixture
def without_training(monkeypatch):
    """The experiment with made-up runs and a base that is asked for nothing."""
    monkeypatch.setattr(dialect, "dialect_run", made_up)
    monkeypatch.setattr(dialect, "language_loss", lambda *_: 4.4)
    monkeypatch.setattr(dialect, "load_domain", lambda *_: dialect_run.Domain(*np.zeros((3, 9), dtype=np.int64)))
    monkeypatch.setattr(dialect, "load_licences", lambda: ([], [], ["a"]))
    monkeypatch.setattr(dialect, "samples", lambda: {"prompts": ["a"], "texts": {"base": ["a b"], "c": ["a | c"]}})


@pytest.mark.parametrize("seeds, quick", [(3, False), (1, False), (5, True)])
def test_table_figure_and_samples(seeds, quick, without_training, tmp_path):
    lines = []
    with ThreadPoolExecutor(1) as executor:
        outcome = dialect.run(seeds, quick, tmp_path, executor, lines.append)
    methods, n = (2, 1) if quick else (len(METHODS), seeds)
    assert len(outcome["runs"]) == 2 * methods * n and len(outcome["table"]) == 2 * methods
    row = outcome["table"][-1]
    found = [np.exp(r["new"]) for r in outcome["runs"] if (r["domain"], r["method"]) == (row["domain"], row["method"])]
    assert row["new_mean"] == pytest.approx(np.mean(found))
    assert row["new_std"] == (pytest.approx(np.std(found, ddof=1)) if n > 1 else None)
    assert read_json(tmp_path / "dialect.json")["table"] == outcome["table"]
    assert (tmp_path / "dialect.png").read_bytes().startswith(b"\x89PNG")
    assert "| **a** b | **a** \\| c |" in (tmp_path / "dialect_samples.md").read_text(encoding="utf-8")
    assert not (tmp_path / "dialect.unfinished.jsonl").exists()
    assert "full fine-tuning" in "\n".join(lines)


def test_a_failed_run_is_reported_and_tried_again(without_training, monkeypatch, tmp_path):
    def fails_once(run):
        if run.method == "full":
            raise FloatingPointError("the loss became nan")
        return made_up(run)

    monkeypatch.setattr(dialect, "dialect_run", fails_once)
    with ThreadPoolExecutor(1) as executor:
        outcome = dialect.run(1, False, tmp_path, executor, lambda line: None)
        assert len(outcome["failed"]) == 2 and "the loss became nan" in outcome["failed"][0]["error"]
        tried = []
        monkeypatch.setattr(dialect, "dialect_run", lambda run: tried.append(run.method) or made_up(run))
        assert not dialect.run(1, False, tmp_path, executor, lambda line: None)["failed"]
    assert tried == ["full", "full"]


def test_learning_rates_are_chosen_by_validation(without_training, tmp_path):
    """The least validation loss of each method; what was tried is not tried again."""
    out, lines = tmp_path / "settings.json", []
    with ThreadPoolExecutor(1) as executor:
        chosen = dialect.tune(executor, lines.append, out)
        for domain, rates in dialect.RATES.items():
            for method, grid in rates.items():
                assert chosen[domain][method] == min(grid, key=lambda rate: abs(math.log(rate / 4e-3)))
        n = len(lines)
        assert n == sum(len(grid) for rates in dialect.RATES.values() for grid in rates.values())
        assert dialect.tune(executor, lines.append, out) == chosen and len(lines) == n


def test_the_chosen_rates_are_those_of_the_grids():
    settings = read_json(dialect.SETTINGS)
    for domain, rates in dialect.RATES.items():
        for method, grid in rates.items():
            assert set(METHODS) == set(rates)
            tried = {float(rate): loss for rate, loss in settings["tried"][domain][method].items()}
            assert set(grid) <= set(tried)
            assert settings["chosen"][domain][method] == min(tried, key=tried.get)


def test_methods():
    assert adapter_of("full") is None
    assert adapter_of("lora_r16") == AdapterConfig(r=16, alpha=32.0, targets=("all-linear",))
    assert dataclasses.asdict(DialectRun("critics", "full", 1, 0.1))["limit"] is None


def test_ticks_are_round():
    assert list(round_numbers(71, 92)) == [75, 80, 85, 90]
    assert round_numbers(35, 220) == [40, 60, 100, 150, 200]


def test_figures_are_drawn_from_json_alone(without_training, tmp_path):
    with ThreadPoolExecutor(1) as executor:
        dialect.run(2, False, tmp_path / "first", executor, lambda line: None)
    draw_dialect(read_json(tmp_path / "first" / "dialect.json"), tmp_path / "second")
    first, second = (tmp_path / folder / "dialect.png" for folder in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


# ---------------------------------------------------------------- what ships


def test_shipped_adapters_speak_their_dialects():
    """Each takes its own domain's words for likelier than the base and the other do."""
    found = dialect_samples.samples()
    assert list(found["texts"]) == ["base", *shipped_adapters()] == ["base", "critics", "licences"]
    legal = ("license", "software", "copyright", "warranty", "font")
    counts = {name: sum(" ".join(texts).count(word) for word in legal) for name, texts in found["texts"].items()}
    assert counts["licences"] >= 5 and counts["base"] == counts["critics"] == 0
    lengths = {name: sum(len(text) for text in texts) for name, texts in found["texts"].items()}
    assert lengths["critics"] < 0.8 * lengths["base"]  # snippets are short and end


def test_the_tiny_base_is_a_model(tiny_base):
    assert load_model(tiny_base)[1].d_model == 16
