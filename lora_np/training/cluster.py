"""Compute a batch's shards on the workers of a Dask cluster.

Each worker loads the base once. In every step it receives the trained arrays, from another worker if one has them
already (Dask's broadcast would wait for a worker that has just been killed), and returns the loss and the gradients of
one shard at a time. With LoRA, these are only the adapter's arrays and gradients.

The number of shards is a setting of the run, and their gradients are added in the shards' order (`accumulate.py`). The
result therefore has the same bits with any number of workers as on one machine, if NumPy and the processors are alike.
If a worker is killed, other workers compute its shards again.
"""

import io
import pickle
import threading
from concurrent.futures import CancelledError

from .streams import stream
from .sweep import TRIES, connect
from .threads import blas_threads


class Workers:
    """The workers that compute the shards of one training run; an argument of `train`.

    Use it as a context manager, so that the connection is closed.

    Parameters
    ----------
    address : str, the address of a Dask scheduler, such as "tcp://10.0.0.1:8786"; this process must be able to reach
        the workers directly
    base, load : dict of the base's weights, and a function without arguments that returns an equal dict. Each worker
        calls it once, so that the weights are not sent

    Raises
    ------
    ValueError
        If the package `distributed` is missing, or if no scheduler answers.
    """

    def __init__(self, address, base=(), load=dict):
        self.client, self.base = connect(address), dict(base)
        self.client.direct_to_workers = True  # the scheduler does not forward the arrays
        self.load, self.objective, self.sent = load, None, None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.sent = None
        self.client.close()

    def compute(self, objective, trainable, shards, seed, step):
        """Compute the shards of one step.

        Parameters
        ----------
        objective, trainable : see `train`; the objective is pickled
        shards : list of batches
        seed, step : int, for the random stream of each shard

        Yields
        ------
        (index of a shard, its Objective), in the order in which they are finished

        Raises
        ------
        ConnectionError
            If the workers are lost several times.
        """
        from distributed import as_completed

        left = dict(enumerate(shards))
        for _ in range(TRIES):
            try:
                if self.objective is not objective:
                    [self.sent] = self.client.scatter([RemoteObjective(objective, self.base, self.load)], hash=False)
                    self.objective = objective
                [arrays] = self.client.scatter([trainable], hash=False)
            except OSError:  # the worker that was to receive them was killed
                continue
            names, tasks = sorted(self.client.nthreads()), {}
            for index, shard in left.items():
                # Dask would compute all shards on the worker that has the arrays already if these are large.
                where = {"workers": names[index % len(names)], "allow_other_workers": True} if names else {}
                of = of_shard, self.sent, arrays, shard, seed, step, index
                tasks[self.client.submit(*of, pure=False, **where)] = index
            for future in as_completed(tasks, loop=self.client.loop):
                try:
                    result = future.result()
                except CancelledError:  # the only worker with the arrays was killed
                    self.objective = None
                else:
                    del left[tasks[future]]
                    yield tasks[future], result
            if not left:
                return
        raise ConnectionError(f"dask: the workers were lost {TRIES} times in step {step + 1}")


class RemoteObjective:
    """An objective that can be pickled without the base's weights.

    Parameters
    ----------
    objective : see `train`
    base, load : see `Workers`
    """

    lock = threading.Lock()

    def __init__(self, objective, base, load):
        from cloudpickle import Pickler

        names = {id(weight): name for name, weight in base.items()}
        file = io.BytesIO()
        pickler = Pickler(file)
        pickler.persistent_id = lambda value: names.get(id(value))
        pickler.dump(objective)
        self.pickled, self.load, self.objective = file.getvalue(), load, None

    def __getstate__(self):
        return self.__dict__ | {"objective": None}

    def __call__(self, *arguments):
        with self.lock:
            if self.objective is None:
                unpickler = pickle.Unpickler(io.BytesIO(self.pickled))
                unpickler.persistent_load = self.load().__getitem__
                self.objective = unpickler.load()
        return self.objective(*arguments)


def of_shard(objective, trainable, shard, seed, step, index):
    """Compute one shard on a worker."""
    with blas_threads(1):
        return objective(trainable, shard, stream(seed, "masks", step, index))
