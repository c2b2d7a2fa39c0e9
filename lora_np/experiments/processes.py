"""Worker processes of this machine behind the standard library's Executor."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from contextlib import contextmanager

from ..training import available_cores, process_environment

TRIES = 3  # a call whose process has died so many times counts as failed


@contextmanager
def worker_environment():
    """Set the environment that new processes inherit, and restore it afterwards."""
    environment = process_environment()
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def worker_count(jobs=None):
    """How many processes to use: `jobs`, or by default one for each core that this process may run on."""
    if jobs is None:
        return available_cores()
    if jobs < 1:
        raise ValueError(f"jobs: got {jobs}, expected at least 1")
    return jobs


class LocalProcesses(ThreadPoolExecutor):
    """An Executor that carries out each call in one of a few processes.

    In ProcessPoolExecutor a killed process fails every call. Here each process has its own pipe and its own thread that
    waits for it, so it is known which call the process died of: that call is begun again in a new process, up to TRIES
    times in all, and the others are not affected.

    Parameters
    ----------
    jobs : int, processes side by side; each is started when there is work for it
    """

    def __init__(self, jobs):
        super().__init__(jobs)
        self._workers = []  # (process, pipe) of each that is alive
        self._idle = []  # those of them that wait for a call
        self._lock = threading.Lock()  # over the list of workers, and the environment while one is started
        self._stopped = False

    def submit(self, function, /, *arguments, **named):
        """Like Executor.submit; the function must be defined in a module, so that the process can import it."""
        return super().submit(self._call, function, arguments, named)

    def stop(self):
        """End all processes at once."""
        with self._lock:
            self._stopped = True
            for process, _ in self._workers:
                process.kill()
        self.shutdown(cancel_futures=True)
        for process, pipe in self._workers:
            process.join()
            pipe.close()

    def _call(self, function, arguments, named):
        """One call, in the thread that waits for it."""
        for _ in range(TRIES):
            try:
                worker = self._idle.pop()
            except IndexError:
                worker = self._start()
            process, pipe = worker
            try:
                pipe.send((function, arguments, named))
                result, error = pipe.recv()
            except (EOFError, ConnectionError):  # the process is gone
                process.join()
                with self._lock:
                    if self._stopped:
                        break
                    self._workers.remove(worker)
                pipe.close()
                continue
            except BaseException:  # packing or unpacking failed; the pipe is in order
                self._idle.append(worker)
                raise
            self._idle.append(worker)
            if error is not None:
                raise error
            return result
        if self._stopped:
            raise BrokenExecutor("the processes were stopped")
        code = process.exitcode
        if code is not None and code < 0:
            raise BrokenExecutor(f"its process was killed {TRIES} times, last by signal {-code} (out of memory?)")
        raise BrokenExecutor(
            f"its process ended {TRIES} times, last with exit code {code}; the reason is in its error output "
            '(does the script start its work outside `if __name__ == "__main__":`?)'
        )

    def _start(self):
        # "spawn" starts each worker as a fresh interpreter, which reads the environment set here.
        context = multiprocessing.get_context("spawn")
        pipe, far_end = context.Pipe()
        process = context.Process(target=serve, args=(far_end,), daemon=True)
        with self._lock, worker_environment():
            if self._stopped:
                raise BrokenExecutor("the processes were stopped")
            process.start()
            self._workers.append((process, pipe))
        far_end.close()  # only the worker holds it now, so that its death ends the pipe
        return process, pipe


def serve(pipe):
    """What a worker does: carry out calls until the pipe or the parent process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too, but its parent ends it
    threading.Thread(target=end_with_parent, daemon=True).start()
    while True:
        try:
            function, arguments, named = pipe.recv()
        except EOFError:
            return
        except Exception as error:  # such as a module that cannot be imported here
            pipe.send((None, error))
            continue
        try:
            answer = function(*arguments, **named), None
        except Exception as error:
            answer = None, error
        try:
            pipe.send(answer)
        except ConnectionError:
            return
        except Exception as error:  # a result or an error that cannot be packed
            pipe.send((None, TypeError(f"{describe(answer[1] or error)}")))


def end_with_parent():
    """End at once when the parent process is gone: nobody waits for the result."""
    multiprocessing.parent_process().join()
    os._exit(1)


def describe(error):
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
