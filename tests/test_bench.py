"""The benchmark: what it measures, how it judges, and that nothing a worker does can bring it down.

No time is asserted. tests/oracles/test_bench_peers.py compares lora_np with PyTorch and JAX.
"""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lora_np.analysis import step_flops
from lora_np.bench import backends, bench, format_tables, parse_peers, parse_rung, rounds, to_dicts
from lora_np.bench import case as cases
from lora_np.bench.agreement import Agreement, Outcome, compare
from lora_np.bench.case import GENERATED_ROWS, NAMED, RUNGS, WORKS, Rung, counted_bytes, flops, format_rung, make_case
from lora_np.bench.llama_cpp import answer
from lora_np.bench.report import format_row, lora_shares, make_row, summary
from lora_np.bench.rounds import Process, WorkerError, backend_environment
from lora_np.bench.worker import forget_peak, peak_bytes
from lora_np.compress import BlockWeight, weight_bytes
from lora_np.model import cache_bytes, empty_cache, forward, make_decoder, next_logits

ROOT = Path(__file__).resolve().parents[1]
TINY = Rung(16, 2, 2, 8, 4, 32)
LLAMA = Rung(64, 2, 4, 8, 4, 37, 2, 96)


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch):
    monkeypatch.setattr(rounds, "TIMED_SECONDS", 0.0)
    monkeypatch.setattr(rounds, "PAUSE", 0.0)


def test_a_rung_and_its_text():
    of_64, smollm2 = RUNGS[0], NAMED["smollm2"]._replace(batch=64, length=8)
    texts = {"64": of_64, "smollm2": NAMED["smollm2"], "smollm2,64,8": smollm2}
    texts |= {"64,r4": of_64._replace(rank=4), "smollm2,64,8,r16": smollm2._replace(rank=16)}
    assert {text: parse_rung(text) for text in texts} == texts
    for rung in (TINY, LLAMA, TINY._replace(rank=2), LLAMA._replace(rank=3), NAMED["minilm"]):
        assert parse_rung(format_rung(rung)) == Rung(*cases.rung_numbers(rung)) == rung
    assert list(map(len, map(cases.rung_numbers, (TINY, LLAMA)))) == [6, 8]  # as older checkouts take them


@pytest.mark.parametrize("rung", [TINY, LLAMA, LLAMA._replace(rank=3)], ids=format_rung)
@pytest.mark.parametrize("work", WORKS)
def test_what_is_counted_is_of_the_case_that_is_timed(rung, work):
    """FLOPs (see tests/test_accounting.py), bytes and tokens, of a case without zeros that is always the same."""
    case, again, generated = make_case(rung, work).dense(), make_case(rung, work).dense(), work in GENERATED_ROWS
    for name, array in case.arrays.items():
        assert array.dtype == np.float32 and np.array_equal(array, again.arrays[name]) and np.unique(array).size > 1
    assert np.array_equal(case.batch.ids, again.batch.ids)
    assert bool(case.trained) == (work != "forward" and not generated) and (case.n_new == 6) == generated
    if work == "classifier":
        assert case.batch.lengths.min() < rung.length == case.batch.lengths.max()
    assert cases.tokens(rung, work) == (len(case.batch.ids) * case.n_new or case.batch.ids.size)

    settings = case.adapter and case.adapter.config
    if settings:
        scales = {config.alpha / config.r for config in (settings, cases.ADAPTERS[work])}
        assert settings.r == (rung.rank or cases.ADAPTERS[work].r) and len(scales) == 1
    if not generated:
        terms = step_flops(case.config, *case.batch.ids.shape, settings, tuple(case.trained))
        assert flops(rung, work) == sum(terms.values()) > 0

    counted = counted_bytes(rung, work)
    assert counted["parameters"] == sum(array.nbytes for array in case.arrays.values())
    assert counted["gradients"] == counted["optimiser"] / 2 == sum(case.arrays[name].nbytes for name in case.trained)
    if generated:
        text, decoder = np.tile(case.batch.ids, 4), make_decoder(case.params, case.config)
        past = next_logits(decoder, text, empty_cache(decoder, len(text)))[1]
        held = past.keys.nbytes + past.values.nbytes
    else:
        _, cache = forward(case.params, case.batch.ids, case.config, adapter=case.adapter, wanted=case.trained)
        held = cache_bytes(cache)
    assert counted["activations"] == held


def test_blocks_and_arrays_of_a_llama_are_the_same_numbers():
    case = make_case(LLAMA, "lora_qv")
    dense, again = case.dense().params, cases.in_blocks(case.dense().params)
    assert weight_bytes(case.params) < weight_bytes(dense) / 4
    for name, weight in case.params.items():
        assert isinstance(weight, BlockWeight) == (weight.ndim == 2), name
        assert isinstance(dense[name], np.ndarray) and np.array_equal(again[name], dense[name]), name


@pytest.mark.parametrize("rung", [TINY, LLAMA])
def test_flops_of_generation_are_those_of_its_passes(rung):
    C, layers, H, T, _, V, K, F, _ = rung
    weights = 2 * C * C + 2 * C * C * K // H + 3 * C * F if K else 12 * C * C  # of a block
    prompt = T // 4
    passes = [(prompt, prompt)] + [(1, t) for t in range(prompt + 1, T)]  # new tokens, tokens that they look at
    one_row = sum(layers * (2 * n * weights + 4 * n * t * C) + 2 * C * V for n, t in passes)
    assert flops(rung, "generate_1") == one_row
    assert flops(rung, "generate_8") == 8 * one_row


TOKENS = np.arange(1, 13).reshape(2, 6)


def outcome(loss=2.0, losses=(2.0, 1.9), **changes):
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((3, 4), dtype=np.float32) for name in ("a.weight", "b.weight")}
    arrays["k_proj.bias"] = 1e-8 * rng.standard_normal(4, dtype=np.float32)
    arrays["tokens"] = TOKENS
    return Outcome(loss, {**arrays, **changes}, list(losses))


RIGHT = outcome()
NOISE = RIGHT.arrays["k_proj.bias"] + 1e-6  # zero in theory: another's noise is as good


@pytest.mark.parametrize(
    "message, changes",
    [
        ("", {"loss": 2.0 + 1e-6, "k_proj.bias": NOISE}),
        ("loss", {"loss": 2.001}),
        ("loss", {"loss": math.nan}),
        ("first steps", {"losses": (2.0, 1.8)}),
        ("first steps", {"losses": (2.0, math.nan)}),
        ("b.weight differs", {"b.weight": 1.001 * RIGHT.arrays["b.weight"]}),
        ("b.weight differs", {"b.weight": np.full((3, 4), np.nan, np.float32)}),
        ("b.weight differs", {"b.weight": np.zeros((4, 3), np.float32)}),
        ("k_proj.bias differs", {"k_proj.bias": np.ones(4, np.float32)}),
        ("only one backend has c.weight", {"c.weight": np.ones(3)}),
        ("25.0% of its tokens", {"tokens": np.where(TOKENS % 4, TOKENS, 5)}),
        ("100.0% of its tokens", {"tokens": TOKENS[:, :5]}),
    ],
)
def test_a_planted_disagreement_is_found_and_rounding_is_none(message, changes):
    problem = compare(outcome(**changes), RIGHT).problem
    assert message in problem and bool(message) == bool(problem)
    # A small loss at the end is judged by the largest.
    assert compare(outcome(losses=(2.0, 1.00002e-3)), outcome(losses=(2.0, 1e-3))).problem == ""


SETTING = {"machine": "a", "cores": 2, "threads": 2, "rounds": 2, "seconds": 1.0, "versions": {}}
SETTING |= {"environment": {}, "not_passed_on": {}}


def row(rung, work, ours, theirs, peak=(2.0 * 2048**3 / 1e11,)):
    seconds = {"lora_np": ours, "torch": theirs, "peak": peak}
    agreement = {"torch": Agreement("", 0.0, 0.0, "", 0.0)}
    return make_row(rung, work, seconds, agreement, {}, {"lora_np": 3e6, "torch": None})


def test_ratios_pair_the_rounds():
    one = row(TINY, "full", [0.1, 0.2, 0.1], [0.2, 0.2, 0.3])
    assert one.ratios == {"torch": pytest.approx([2.0, 1.0, 3.0])}
    gflops = flops(TINY, "full") / 0.1 / 1e9
    assert (one.gflops["lora_np"], one.gflops["peak"]) == pytest.approx((gflops, 100.0))
    assert one.share_of_peak["lora_np"] == pytest.approx(gflops / 100.0)


def test_the_summary_is_the_geometric_mean_and_the_lowest():
    wide = TINY._replace(d_model=32)
    rows = [row(TINY, "full", [1.0], [8.0]), row(wide, "full", [1.0], [0.5]), row(wide, "lora_qv", [0.4], [1.0])]
    full, lora = summary(rows, ["torch"])
    of_full = {"work": "full", "peer": "torch", "rungs": 2, "lowest": 0.5, "lowest_rung": list(wide)}
    assert full == of_full | {"mean": pytest.approx(2.0)} and lora["mean"] == pytest.approx(2.5)
    (share,) = lora_shares(rows)
    assert share["rung"] == list(wide) and share["flops"] == flops(wide, "lora_qv") / flops(wide, "full")
    activations = [counted_bytes(wide, work)["activations"] for work in ("lora_qv", "full")]
    assert share["time"] == pytest.approx(0.4) and share["activation_bytes"] == activations[0] / activations[1] < 1


def test_the_tables_have_what_is_counted_beside_what_is_measured():
    rung = RUNGS[0]
    text = format_tables([row(rung, "full", [0.1024], [0.2])], SETTING, ["torch"])
    for table, title, value in (
        ("full:", "µs/token", "50"),  # of 2048 tokens
        ("full:", "GFLOP", f"{flops(rung, 'full') / 1e9:.4g}"),
        ("full:", "GFLOP/s", f"{flops(rung, 'full') / 0.1024e9:.0f}"),
        ("peak memory", "lora_np", "3"),
        ("peak memory", "lora_np's arrays", f"{sum(counted_bytes(rung, 'full').values()) / 1e6:.0f}"),
    ):
        [lines] = [block.splitlines() for block in text.split("\n\n") if block.startswith(table)]
        cells = dict(zip(re.split(" {2,}", lines[1].strip()), re.split(" {2,}", lines[3].strip())))
        assert cells[title] == value


def test_a_busy_machine_is_told():
    for slowest, busy in ((0.1, False), (0.13, True)):
        one = row(TINY, "full", [0.1, 0.1], [0.2, 0.2], peak=(0.1, slowest))
        for text in (format_row(one), format_tables([one], SETTING, ["torch"])):
            assert ("its speed varied by a factor of 1.30" in text) == ("busy" in text) == busy


@pytest.mark.slow
def test_the_command_with_lora_np_in_other_ways_as_peers(tmp_path, run):
    path, works, peers = tmp_path / "bench.json", ["full", "lora_qv"], ["blocks", "recompute", "blocks-recompute"]
    settings = ["--rungs", format_rung(LLAMA), "--rounds", "2", "--threads", "1", "--json", path]
    printed = run("bench", "--peers", *peers, "--work", *works, *settings)
    assert "GFLOP/s" in printed and "share of its full training step" in printed
    assert re.search(r"peak memory.*\n.*lora_np +blocks +recompute +blocks-recompute +lora_np's arrays\n", printed)
    outcome = json.loads(path.read_text(encoding="utf-8"))
    assert [row["work"] for row in outcome["rows"]] == works
    for row in outcome["rows"]:
        ways = ["recompute"] if row["work"] == "full" else peers  # blocks are not trained
        assert set(row["seconds"]) == {"lora_np", "peak", *ways} and row["notes"] == {}
        assert len(row["seconds"]["lora_np"]) == 2 and min(row["seconds"]["lora_np"]) > 0.0
        assert all(row["peak_bytes"][name] > 1e6 for name in ("lora_np", *ways))
    assert outcome["versions"]["lora_np"]["numpy"] == np.__version__ and outcome["threads"] == 1


@pytest.mark.parametrize(
    "option, value, message",
    [
        ("peers", "tensorflow", "got 'tensorflow'"),
        ("work", "sleep", "got 'sleep'"),
        ("threads", "100000", "got 100000"),
        ("rungs", "65", "got '65', expected one of 64, 128, 256, 512, 768"),
        ("rungs", "wide", "integers"),
        ("rungs", "64,2,4", "six integers"),
        ("rungs", "smollm2,16", "smollm2,batch,length"),
        ("rungs", "smollm2,16,0", "at least 1"),
        ("rungs", "64,2,4,64,32,2048,-1,96", "at least 1"),
        ("rungs", "64,2000000000,2,64,32,90", "n_layers: got 2000000000, expected an integer from 1 to 1000"),
        ("rungs", "64,2,4,64,32,2048,3,96", "n_kv_heads: 3 does not divide n_heads"),
        ("rungs", "96,2,32,64,32,2048,32,96", "head_size: got 3"),
        ("rungs", "64,2,4,64,32,2048,2,100", "multiples of 32"),
        ("rungs", "64,2,16,64,32,2048,1,96", "k_proj: r: got 8"),
        ("rungs", "64,2,5,64,32,2048", "n_heads: 5 does not divide d_model"),
        ("rungs", "64,2,4,3,32,2048", "length"),
        ("rungs", "4,2,2,64,32,2048", "r: got 8"),
        ("rungs", "64,r", "a rank"),
        ("rungs", "64,r65", "r: got 65"),
        ("rungs", "smollm2,16,34,r193", "r: got 193"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_runs(option, value, message, fails, monkeypatch):
    monkeypatch.setattr(rounds, "measure", None)
    peers = [] if option == "peers" else ["--peers"]
    fails("bench", *peers, f"--{option}", value, says=[f"{option}: ", message])


def test_peers_that_are_not_installed(monkeypatch):
    monkeypatch.setattr(backends, "missing_packages", lambda peer: [p for p in peer.packages if p == "jax"])
    peers, absent = parse_peers(None)
    assert peers == ["torch", "compile"] and absent == ["jax (not installed: jax)"]
    assert parse_peers(["torch,compile", "torch"]) == (["torch", "compile"], [])
    with pytest.raises(ValueError, match="jax is not installed"):
        bench([TINY], ["full"], ["jax"])


def test_a_rung_that_a_peer_does_not_have():
    for peer, rung, message in (("jax", LLAMA, "GPT-2's"), ("llama.cpp", TINY, "Llama"), ("blocks", TINY, "blocks")):
        with pytest.raises(ValueError, match=message):
            backends.BACKENDS[peer](make_case(rung, "forward"), 1)


@pytest.mark.slow
def test_a_peer_that_disagrees_is_told_and_not_timed(monkeypatch):
    other = f"other={ROOT}"
    monkeypatch.setattr(rounds, "compare", lambda got, expected: Agreement("its loss is 7", 1.0, 0.0, "", 0.0))
    rows, setting = bench([TINY], ["full"], [other], threads=1, rounds=1)
    assert set(rows[0].seconds) == {"lora_np", "peak"} and rows[0].failed
    assert rows[0].notes == {other: "disagrees: its loss is 7"}
    assert "disagrees: its loss is 7" in format_tables(rows, setting, [other])
    assert json.dumps(to_dicts(rows, setting, [other]))


@pytest.mark.slow
def test_another_checkout_is_a_peer_under_a_name_of_its_own(tmp_path):
    """Its worker runs its own code, wherever the bench was started."""
    package = tmp_path / "lora_np"
    shutil.copytree(ROOT / "lora_np", package, ignore=shutil.ignore_patterns("vectors", "__pycache__"))
    text = (package / "bench" / "worker.py").read_text(encoding="utf-8")
    changed = text.replace('return {"versions": numbers}', 'return {"versions": {"file": __file__}}')
    (package / "bench" / "worker.py").write_text(changed, encoding="utf-8")
    old = f"old={tmp_path}"
    assert parse_peers([old])[0] == [old]
    rows, setting = bench([TINY], ["full"], [old], threads=1, rounds=1)
    assert set(rows[0].seconds) == {"lora_np", old, "peak"} and rows[0].agreement[old].problem == ""
    assert setting["versions"][old]["file"] == str(package / "bench" / "worker.py")
    assert "old ms" in format_tables(rows, setting, [old])
    with pytest.raises(ValueError, match="expected a checkout of lora_np in the folder /nowhere"):
        bench([TINY], ["full"], ["old=/nowhere"])


@pytest.mark.parametrize(
    "dies_at, note", [pytest.param("make", "not available", marks=pytest.mark.slow), ("turn", "failed in round 1")]
)
def test_rows_survive_a_worker_that_does_not(dies_at, note, monkeypatch):
    """Whatever is lost with it, the times of the others are kept; and the next row starts it again."""
    real = Process.ask

    def ask(process, do, **arguments):
        if do == dies_at and process.backend == "peak":
            process.kill()
        return real(process, do, **arguments)

    monkeypatch.setattr(Process, "ask", ask)
    rows, setting = bench([TINY], ["full", "forward"], threads=1, rounds=1)
    notes = {"peak": f"{note}: the process ended with code -9"}
    for row in rows:
        assert set(row.seconds) == {"lora_np"} and len(row.seconds["lora_np"]) == 1
        assert row.notes == notes and not row.failed
    assert f"peak {notes['peak']}" in format_tables(rows, setting, [])
    assert set(setting["versions"]) == {"lora_np"} and json.dumps(to_dicts(rows, setting, []))


linux = pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")


def test_kernels_are_not_pinned_unless_asked_for(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    for name in ("lora_np", "torch"):
        assert "OPENBLAS_CORETYPE" not in backend_environment(name, 2, False)
        assert backend_environment(name, 2, True)["OPENBLAS_CORETYPE"] == "Prescott"


def test_an_error_is_an_answer_and_a_worker_that_takes_too_long_is_stopped():
    with Process("lora_np", 1) as process:
        with pytest.raises(WorkerError, match="TypeError"):
            process.ask("make", rung=[1, 2], work="full", seed=0)
        process.ask("make", rung=list(TINY), work="lora_qv", seed=0)
        assert len(process.ask("turn", seconds=0.0)["seconds"]) == 1
        with pytest.raises(WorkerError, match="turn took longer than 0 s"):
            process.ask("turn", seconds=60.0, timeout=0.01)
        assert process.poll() is not None
        with pytest.raises(WorkerError, match="ended with code"):
            process.ask("turn", seconds=0.0)
    with Process("lora_np", 1) as process:  # its last words are told
        process.stdin.write("no JSON\n")
        with pytest.raises(WorkerError, match="ended with code 1: .*JSONDecodeError"):
            process.ask("versions", timeout=60.0)


@linux
def test_the_peak_of_memory_of_another_process():
    code = "import sys\nfor _ in sys.stdin: len(b'1' * 2**27); print(flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True, bufsize=1) as other:
        for _ in "ab":
            other.stdin.write("\n")
            other.stdout.readline()
            assert peak_bytes(other.pid) > 2**27
            forget_peak(other.pid)
            assert 2 * peak_bytes(other.pid) < 2**27


def test_a_dead_llama_cpp_is_an_error():
    with subprocess.Popen([sys.executable, "-c", ""], stdin=-1, stdout=-1, encoding="utf-8") as dead:
        dead.wait()
        with pytest.raises(RuntimeError, match="without an answer"):
            answer(dead, {"do": "tokenize", "text": ""})


def test_what_a_library_prints_is_no_answer():
    code = (
        "import os\nfrom lora_np.bench.worker import answers_only\nanswers = answers_only()\n"
        "print('noise', flush=True)\nos.write(1, b'more noise')\nprint('answer', file=answers, flush=True)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "answer\n" and "noise" in result.stderr
