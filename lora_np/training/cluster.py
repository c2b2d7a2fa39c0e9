"""Compute a batch's shards on the workers of a Dask cluster.

Each worker receives the objective once, with the base's weights, and in every step the trained arrays, from another
worker if one has them already. (Dask's broadcast would wait for a worker that has just been killed.) It returns the loss
and the gradients of one shard at a time. With LoRA, only the adapter's arrays and gradients are sent in each step.

The number of shards is a setting of the run, and their gradients are added in the shards' order (`accumulate.py`). The
result therefore has the same bits with any number of workers as on one machine, if NumPy and the processors are alike.
If a worker is killed, other workers compute its shards again.
"""

from concurrent.futures import BrokenExecutor, CancelledError

from .streams import stream
from .sweep import TRIES, connect
from .threads import blas_threads


class Workers:
    """The workers that compute the shards of one training run; an argument of `train`.

    Use it as a context manager, so that the connection is closed.

    Parameters
    ----------
    address : str, the address of a Dask scheduler, such as "tcp://10.0.0.1:8786"

    Raises
    ------
    ValueError
        If the package `distributed` is missing, or if no scheduler answers.
    """

    def __init__(self, address):
        self.client, self.objective, self.sent = connect(address), None, None

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
        """
        from distributed import as_completed

        left = dict(enumerate(shards))
        for _ in range(TRIES):
            if self.objective is not objective:
                [self.sent] = self.client.scatter([objective], hash=False)
                self.objective = objective
            [arrays] = self.client.scatter([trainable], hash=False)
            tasks = {
                self.client.submit(of_shard, self.sent, arrays, shard, seed, step, index, pure=False): index
                for index, shard in left.items()
            }
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
        raise BrokenExecutor(f"dask: the workers were lost {TRIES} times in step {step + 1}")


def of_shard(objective, trainable, shard, seed, step, index):
    """Compute one shard on a worker."""
    with blas_threads(1):
        return objective(trainable, shard, stream(seed, "masks", step, index))
