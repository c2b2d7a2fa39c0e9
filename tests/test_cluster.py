"""Training on the workers of a Dask cluster: the bits of one process, also if a worker is killed."""

import os
import signal
import threading

import numpy as np
import pytest

from lora_np.adapters import AdapterConfig, init_adapter
from lora_np.training import fine_tuning, train
from lora_np.training.cluster import Workers

from .tiny import random_batch, random_params, same_bits, tiny_llama

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.slow


def plan(adapter_config, **settings):
    """The arguments of `train` for a tiny Llama with dropout, which also draws masks for its adapter."""
    config = tiny_llama(dropout=0.1)
    params, batches = (
        random_params(config, np.float32),
        [random_batch(config, B=12, T=7, seed=seed) for seed in range(3)],
    )
    adapter = None if adapter_config is None else init_adapter(params, adapter_config, np.random.default_rng(0))
    more = {"learning_rate": 1e-2, "epochs": 4, "shards": 6} | settings
    return fine_tuning(params, config, adapter, lambda rng: batches, batches[:1], **more)


@pytest.mark.parametrize("n_workers, killed", [(2, False), (3, True), (5, True)])
@pytest.mark.parametrize("adapter_config", [AdapterConfig(r=2, dropout=0.1, targets=("all-linear",)), None])
def test_a_cluster_gives_the_bits_of_one_process(n_workers, killed, adapter_config):
    given = plan(adapter_config)
    expected = train(**given)
    settings = {"threads_per_worker": 1, "processes": True, "dashboard_address": None, "silence_logs": 50}
    with (
        distributed.LocalCluster(n_workers=n_workers, **settings) as cluster,
        Workers(cluster.scheduler_address) as workers,
    ):
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


def test_an_error_of_a_worker_ends_the_run():
    given = plan(None)
    batches = [batch._replace(ids=batch.ids + 100) for batch in given["epoch_batches"](None)]
    given["epoch_batches"] = lambda rng: batches
    with distributed.LocalCluster(n_workers=1, processes=True, dashboard_address=None, silence_logs=50) as cluster:
        with Workers(cluster.scheduler_address) as workers, pytest.raises(ValueError, match="ids: got 1"):
            train(**given, workers=workers)
