"""Training on the workers of a Dask cluster: the bits of one process, also if a worker is killed."""

import os
import pickle
import signal
import threading
from functools import partial

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, init_adapter
from lora_np.formats import read_model
from lora_np.formats.model import model_sha256
from lora_np.tasks.finetuning import load_base
from lora_np.training import fine_tuning, train
from lora_np.training.cluster import RemoteObjective, Workers

from .test_cli import write_csv
from .tiny import random_batch, random_params, same_bits, tiny_llama

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.slow


def plan(adapter_config, **settings):
    """The arguments of `train` for a tiny Llama with dropout, which also draws masks for its adapter."""
    config = tiny_llama(dropout=0.1)
    params = random_params(config, np.float32)
    batches = [random_batch(config, B=12, T=7, seed=seed) for seed in range(3)]
    adapter = None if adapter_config is None else init_adapter(params, adapter_config, np.random.default_rng(0))
    more = {"learning_rate": 1e-2, "epochs": 4, "shards": 6} | settings
    return fine_tuning(params, config, adapter, lambda rng: batches, batches[:1], **more)


def cluster_of(n_workers):
    """A Dask cluster of processes on this machine."""
    settings = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0", "silence_logs": 50}
    return distributed.LocalCluster(n_workers=n_workers, **settings)


@pytest.mark.parametrize("n_workers, killed", [(2, False), (3, True), (5, True)])
@pytest.mark.parametrize("adapter_config", [AdapterConfig(r=2, dropout=0.1, targets=("all-linear",)), None])
def test_a_cluster_gives_the_bits_of_one_process(n_workers, killed, adapter_config):
    given = plan(adapter_config)
    expected = train(**given)
    with cluster_of(n_workers) as cluster, Workers(cluster.scheduler_address) as workers:
        steps, [pid, *_] = [], [worker.process.process.pid for worker in cluster.workers.values()]

        def kill_in_the_second_step(step, measured):
            steps.append(step)
            if killed and step == 1:
                threading.Timer(0.02, os.kill, (pid, signal.SIGKILL)).start()

        got = train(**given, workers=workers, on_step=kill_in_the_second_step)
        assert steps[-1] == expected.step
        assert not killed or pid not in [worker.process.process.pid for worker in cluster.workers.values()]
    assert same_bits(got.best, expected.best)
    assert all(np.array_equal(got.history[name], values) for name, values in expected.history.items())


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_a_worker_that_is_killed_while_it_receives_arrays_is_replaced(lost):
    """`lost` is the call in which the connection is closed: call 0 sends the objective, the others the arrays."""
    given, calls = plan(None), []
    expected = train(**given)
    with cluster_of(2) as cluster, Workers(cluster.scheduler_address) as workers:
        scatter = workers.client.scatter

        def interrupted(*arguments, **options):
            calls.append(arguments)
            if len(calls) == lost + 1:
                raise distributed.comm.core.CommClosedError
            return scatter(*arguments, **options)

        workers.client.scatter = interrupted
        got = train(**given, workers=workers)
    assert len(calls) == expected.step + 2 and same_bits(got.best, expected.best)


def test_an_error_of_a_worker_ends_the_run():
    given = plan(None)
    batches = [batch._replace(ids=batch.ids + 100) for batch in given["epoch_batches"](None)]
    given["epoch_batches"] = lambda rng: batches
    with cluster_of(1) as cluster, Workers(cluster.scheduler_address) as workers:
        with pytest.raises(ValueError, match="ids: got 1"):
            train(**given, workers=workers)


@pytest.mark.parametrize("more", [(), ("--variant", "pissa", "--rank", 4), ("--method", "full")])
def test_the_command_gives_the_same_files(more, tiny_base, tmp_path, run, fails):
    rows = [(f"{word} {i}", word) for i in range(30) for word in ("good", "bad")]
    table = write_csv(tmp_path / "table.csv", rows)
    options = "--data", table, "--text", "t", "--label", "l", "--base", tiny_base, "--threads", 3, *more
    with cluster_of(2) as cluster:
        there = *options, "--dask", cluster.scheduler_address
        assert "2 Dask workers compute 3 shards per step" in run("finetune", *there, "--out", tmp_path / "there")
        fails("finetune", *there, "--minutes", 1, "--out", tmp_path / "other", says=["a search cannot use Dask"])
    run("finetune", *options, "--out", tmp_path / "here")
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert names == {path.name for path in (tmp_path / "there").iterdir()}
    for name in names:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name


def test_the_weights_of_the_base_are_not_sent(tiny_base):
    weight = read_model(tiny_base).params["tok_emb.weight"]
    load = partial(load_base, tiny_base, "dense", model_sha256(tiny_base))
    sent = RemoteObjective(partial(np.multiply, weight), {"tok_emb.weight": weight}, load)
    assert len(sent.pickled) < 1000 < weight.nbytes
    assert np.array_equal(pickle.loads(pickle.dumps(sent))(2), 2 * weight)
    sent.load = partial(load_base, tiny_base, "dense", "another")
    with pytest.raises(ValueError, match="on a worker differs from the base of this run"):
        pickle.loads(pickle.dumps(sent))(2)
