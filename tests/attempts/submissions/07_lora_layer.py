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

# == merge: hostile, answers of one's own
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
