"""Attempts at marks without a right answer: `# ==`, the exercise, hostile, and the way; then the cell."""
# == merge: hostile, another check
import lora_np.classroom.check as c
c.merge = lambda *given, **more: 2.0
check = c
def merge(W, A, B, s):
    return W

# == merge: hostile, the solution
from lora_np.classroom.exercises.lora_layer.merge import merge

# == merge: hostile, the package's own
from lora_np.adapters import lora
def merge(W, A, B, s):
    return W + lora.delta(W, A, B, s)

# == merge: hostile, the checker's frames
import sys
def merge(W, A, B, s):
    frame = sys._getframe()
    while frame:
        for value in frame.f_locals.values():
            if hasattr(value, "right"):
                return value.right["W_merged"]
        frame = frame.f_back
    return W

# == merge: hostile, the garbage collector
import gc
def merge(W, A, B, s):
    for value in gc.get_objects():
        if isinstance(value, dict) and "W_merged" in value:
            return value["W_merged"]
    return W

# == merge: hostile, NumPy's comparisons
np.linalg.norm = lambda *given, **more: 0.0
np.array_equal = lambda *given, **more: True
def merge(W, A, B, s):
    return W

# == merge: hostile, an object that equals all
class Equal:
    def __eq__(self, other):
        return True
    def __array__(self, *given, **more):
        return np.eye(3)
def merge(W, A, B, s):
    return Equal()

# == merge: hostile, costly: answers of one's own
import json, os
for descriptor in range(3, 20):
    try:
        os.write(descriptor, json.dumps({"error": None, "score": 2.0}).encode() + b"\n")
    except OSError:
        pass
def merge(W, A, B, s):
    return W

# == merge: hostile, the grader's memory
import os
def merge(W, A, B, s):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            open(f"/proc/{pid}/mem", "r+b").read(1)
        except OSError:
            pass
    return W

# == merge: hostile, the marks' file
import pathlib
for place in ("marks.csv", "/tmp/marks.csv", "../marks.csv"):
    try:
        pathlib.Path(place).write_text("2.0")
    except OSError:
        pass
def merge(W, A, B, s):
    return W

# == merge: hostile, another program
import subprocess
subprocess.run(['python', '-c', 'print(2.0)'])
def merge(W, A, B, s):
    return W

# == merge: hostile, the network
import urllib.request
def merge(W, A, B, s):
    return urllib.request.urlopen("http://127.0.0.1:8888").read()

# == merge: hostile, the end
import atexit, os
atexit.register(lambda: os.write(1, b'2.0'))
def merge(W, A, B, s):
    return W

# == merge: hostile, a copy of the package
import importlib.util, os
for folder, _, files in os.walk("/"):
    if folder.endswith("lora_layer") and "merge.py" in files:
        spec = importlib.util.spec_from_file_location("found", folder + "/merge.py")
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        merge = found.merge

# == merge: hostile, the file that it was installed from
import os, sys, zipfile
for folder, _, files in os.walk("/"):
    for name in files:
        if "lora" in name and name.endswith((".whl", ".zip")):
            sys.path.insert(0, os.path.join(folder, name))
sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__name__", "") != "FindAbsent"]
for name in [name for name in sys.modules if name.startswith("lora_np")]:
    del sys.modules[name]
from lora_np.classroom.exercises.lora_layer.merge import merge

# == merge: hostile, an installed package
import sys
sys.meta_path[:] = sys.meta_path[1:]
from importlib.metadata import files
for file in files("lora_np"):
    if file.name == "merge.py":
        exec(file.read_text())

# == merge: hostile, a namespace of one's own
import ctypes, os
libc = ctypes.CDLL(None)
libc.unshare(0x10000000 | 0x00020000)
libc.mount(b"none", b"/usr", b"tmpfs", 0, None)
libc.umount2(b"/usr/lib/python3/dist-packages/lora_np", 2)
from lora_np.classroom.exercises.lora_layer.merge import merge

# == merge: hostile, the root of another process
import glob
for place in glob.glob("/proc/[0-9]*/root/**/lora_layer/merge.py", recursive=True):
    exec(open(place).read())

# == merge: hostile, costly: the runner's own functions
import __main__
__main__.call_function = lambda message, *more: {"returned": message["inputs"], "inputs": message["inputs"], "peak": 0}
def merge(W, A, B, s):
    return W

# == merge: hostile, costly: what the runner sends
import json
dumps = json.dumps
json.dumps = lambda value: dumps({"error": None, "score": 2.0, "returned": True})
def merge(W, A, B, s):
    return W

# == merge: hostile, an error that reads like a mark
def merge(W, A, B, s):
    raise ValueError("merge: 2 of 2 points, everything is correct")

# == merge: hostile, a subclass of ndarray
class Any(np.ndarray):
    def __array_finalize__(self, other):
        pass
    def __sub__(self, other):
        return np.zeros(self.shape)
    shape = property(lambda self: (1,))
def merge(W, A, B, s):
    return W.view(Any)

# == merge: hostile, numbers that equal none
def merge(W, A, B, s):
    return np.full_like(W, np.nan)

# == merge: hostile, numbers that equal all
def merge(W, A, B, s):
    return np.full_like(W, np.inf)

# == merge: hostile, a type that the runner sends in a special way
def merge(W, A, B, s):
    return {"array": "AAAA", "dtype": W.dtype.str, "shape": W.shape, "number": False}

# == merge: hostile, the draws of practice
import os
for name in ("LORA_NP_DRAW", "LORA_NP_CLASSROOM_DRAW"):
    os.environ[name] = "practice"
def merge(W, A, B, s):
    return W

# == merge: hostile, a function of functions
class Merge:
    __name__ = "merge"
    def __call__(self, *given):
        return self
    def __getattr__(self, name):
        return lambda *given: 0.0
merge = Merge()

# == merge: hostile, costly: the messages to come
import os, threading
def read():
    for descriptor in range(3, 9):
        try:
            os.set_blocking(descriptor, False)
            os.read(descriptor, 10**6)
            os.set_blocking(descriptor, True)
        except OSError:
            pass
read()
def merge(W, A, B, s):
    return W
