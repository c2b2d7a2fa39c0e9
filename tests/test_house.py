"""The architecture holds: imports go downward, and each floor keeps to what it may do.

ruff's NPY rules, which CI runs, see that randomness comes from explicit generators.

`problems` looks at the source of a whole package, as a dict of files, and returns what is wrong with it. The
real package must have none, and each rule must find the small violation that is planted for it. What is imported at
the top of a file is seen by importing it.
"""

import ast
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = {
    "checked": 0,  # checks of arguments, for all rooms
    "ops": 1,
    "compress": 1,
    "data": 1,
    "adapters": 2,
    "model": 3,
    "formats": 4,
    "analysis": 4,
    "training": 5,
    "tasks": 6,
    "experiments": 7,
    "reference": 7,
    "bench": 7,
    "pages": 7,
    "classroom": 8,  # teaches and grades what all the rooms below do
    "cli": 9,
    "__main__": 10,  # starts the cli
    "__init__": 11,  # whatever `import lora_np` offers; the rooms below take its __version__ and no more
}
BESIDE = ("micro",)  # the subject in one file: NumPy and the standard library alone, and nothing imports it
NUMPY_ALONE = ("ops", "compress")  # not even inside a function do these import another package
READERS = ("formats", "data")  # the rooms below floor 5 whose job is files
QUIET_BELOW = 5

WORLDLY = {"time", "datetime", "matplotlib", "tqdm", "logging"}  # clocks, plots, output
GIVEN = {"formats/templates.py": "datetime"}  # writes a date that its caller gives
FILE_MODULES = {"os", "io", "pathlib", "tempfile", "shutil", "glob", "subprocess", "mmap", "csv"}
FILE_CALLS = {"open", "fromfile", "tofile", "loadtxt", "savetxt", "genfromtxt", "savez", "savez_compressed"}
FILE_CALLS |= {"read_text", "read_bytes", "write_text", "write_bytes", "memmap"}
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
PICKLED = "training/cluster.py"  # what a run sends to its own workers, as Dask does with everything else
MOST_LINES = 400


# ------------------------------------------------------------------ what a file says


def module_name(path):
    """ "model/config.py" -> ("model", "config"), "model/__init__.py" -> ("model",), "cli.py" -> ("cli",)."""
    names = path.removesuffix(".py").split("/")
    return tuple(names[:-1] if len(names) > 1 and names[-1] == "__init__" else names)


def imports(path, nodes):
    """Every import, wherever it is, as (module, name): `from ..ops import x` in adapters/ is ("lora_np.ops", "x")."""
    package = ".".join(["lora_np", *path.split("/")[:-1]])
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            yield from ((module, alias.name) for alias in node.names)


def inside(module, name, modules):
    """The package's own module that an import reaches, as a tuple of names; None for a foreign one."""
    package, *names = module.split(".")
    if package != "lora_np":
        return None
    return (*names, name) if (*names, name) in modules else tuple(names) or ("__init__",)


def calls(nodes):
    """(name, node) of everything that is called; `open(…)` and `path.open(…)` are both "open"."""
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield getattr(node.func, "id", None) or node.func.attr, node


# ------------------------------------------------------------------ the rules


def problems(files):
    """What is wrong with a package.

    Parameters
    ----------
    files : dict, path inside the package ("model/config.py") -> source

    Returns
    -------
    list of str, each with the path in front
    """
    modules = {module_name(path) for path in files}
    messages, graph = [], {}
    for path, source in files.items():
        nodes, room = list(ast.walk(ast.parse(source, path))), module_name(path)[0]
        if room in BESIDE:
            for module, _ in imports(path, nodes):
                if module.split(".")[0] not in {*sys.stdlib_module_names, "numpy"}:
                    messages.append(f"{path}: imports {module}, expected NumPy alone")
            messages += [f"{path}: {problem}" for problem in deeds(nodes, "cli")]
            continue
        if room not in FLOORS:
            messages.append(f"{path}: {room} has no floor")
            continue
        graph[module_name(path)] = set()
        for module, name in imports(path, nodes):
            target = inside(module, name, modules)
            if target is None:
                messages += foreign_import(path, room, module.split(".")[0])
            elif target == ("__init__",):
                if name != "__version__":
                    messages.append(f"{path}: imports {name} from the package's front door")
            else:
                graph[module_name(path)].add(target)
                if target[0] in BESIDE:
                    messages.append(f"{path}: imports {target[0]}, which nothing may import")
                if target[0] != room and FLOORS.get(target[0], 99) >= FLOORS[room]:
                    messages.append(f"{path}: imports upward, {room} (floor {FLOORS[room]}) from {target[0]}")
        messages += [f"{path}: {problem}" for problem in deeds(nodes, room)]
        if source.count("\n") > MOST_LINES:
            messages.append(f"{path}: longer than {MOST_LINES} lines")
        if "util" in module_name(path)[-1] or "util" in room:
            messages.append(f"{path}: is named after no topic")
    return messages + [f"{'/'.join(ring[0])}: imports in a ring: {ring}" for ring in rings(graph)]


def foreign_import(path, room, package):
    """Problems with importing a package that is not ours."""
    if room in NUMPY_ALONE and package not in {*sys.stdlib_module_names, "numpy"}:
        yield f"{path}: imports {package}, and {room} may import NumPy alone"
    if package in PICKLES and path != PICKLED:
        yield f"{path}: imports {package}: nothing is read or written with pickle"
    if package == "random":
        yield f"{path}: imports the standard library's random, one global generator"
    if FLOORS[room] < QUIET_BELOW and package in WORLDLY and GIVEN.get(path) != package:
        yield f"{path}: imports {package} below floor {QUIET_BELOW}"
    if FLOORS[room] < QUIET_BELOW and room not in READERS and package in FILE_MODULES:
        yield f"{path}: imports {package}, and {room} has no business with files"


def deeds(nodes, room):
    """Problems with what a file does, wherever in it."""
    quiet = FLOORS[room] < QUIET_BELOW
    for name, node in calls(nodes):
        if quiet and name == "print":
            yield "prints"
        if name == "RandomState":
            yield "uses RandomState, not a Generator"
        method_of_numpy = isinstance(node.func, ast.Attribute) and name in ("load", "save")
        if quiet and room not in READERS and (name in FILE_CALLS or method_of_numpy):
            yield f"reads or writes a file ({name})"
        for keyword in node.keywords:
            if keyword.arg == "allow_pickle" and getattr(keyword.value, "value", True) is not False:
                yield "allows pickle"


def rings(graph):
    """An import ring, as a list of one list of modules; empty without a ring."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [error.args[1]]
    return []


# ------------------------------------------------------------------ the package, and proof that the rules bite


def package_files():
    folder = ROOT / "lora_np"
    return {str(path.relative_to(folder).as_posix()): path.read_text("utf-8") for path in folder.rglob("*.py")}


def test_the_package_has_no_problems():
    files = package_files()
    assert {"ops/linear.py", "model/gpt2.py", "training/trainer.py"} <= set(files)
    assert problems(files) == []


VIOLATIONS = {
    "upward": ({"ops/linear.py": "from ..model import forward", "model/__init__.py": ""}, "upward"),
    "upward, absolute": ({"adapters/a.py": "import lora_np.training.trainer"}, "upward"),
    "upward, in a function": ({"ops/a.py": "def f():\n    from ..adapters import KINDS"}, "upward"),
    "sideways": ({"formats/a.py": "from ..analysis import spectra"}, "upward"),
    "sideways from the top": ({"training/a.py": "from .. import experiments", "experiments/__init__.py": ""}, "upward"),
    "front door": ({"model/a.py": "from .. import forward"}, "front door"),
    "no floor": ({"helpers/a.py": ""}, "no floor"),
    "ring of three": (
        {
            "ops/a.py": "from . import b",
            "ops/b.py": "import lora_np.ops.c",
            "ops/c.py": "def f():\n    from .a import x",
        },
        "ring",
    ),
    "ring with the folder": ({"ops/__init__.py": "from .a import f", "ops/a.py": "from . import f"}, "ring"),
    "heavy in ops": ({"ops/a.py": "def f():\n    import scipy.linalg"}, "NumPy alone"),
    "print": ({"model/a.py": "def f():\n    print(1)"}, "prints"),
    "plot": ({"analysis/a.py": "def f():\n    import matplotlib.pyplot as plt"}, "below floor 5"),
    "clock": ({"ops/a.py": "from time import perf_counter"}, "below floor 5"),
    "open": ({"analysis/a.py": "def f(p):\n    return open(p).read()"}, "reads or writes"),
    "path": ({"model/a.py": "def f(p):\n    return p.read_text()"}, "reads or writes"),
    "np.load": ({"model/a.py": "import numpy as np\ndef f(p):\n    return np.load(p)"}, "reads or writes"),
    "pathlib": ({"adapters/a.py": "from pathlib import Path"}, "no business with files"),
    "pickle": ({"formats/a.py": "import pickle"}, "pickle"),
    "allow_pickle": ({"formats/a.py": "import numpy as np\nnp.load('a', allow_pickle=True)"}, "allows pickle"),
    "allow_pickle, unknown": ({"data/a.py": "import numpy\ndef f(x):\n    numpy.load(x, allow_pickle=x)"}, "allows"),
    "random": ({"data/a.py": "import random"}, "global generator"),
    "RandomState": ({"cli.py": "import numpy.random as r\nx = r.RandomState(0)"}, "RandomState"),
    "long": ({"model/a.py": "x = 1\n" * 401}, "longer than 400"),
    "utils": ({"ops/utils.py": ""}, "no topic"),
    "micro from the house": ({"micro.py": "import lora_np.ops", "ops/__init__.py": ""}, "NumPy alone"),
    "micro, relative": ({"micro.py": "def f():\n    from . import ops", "ops/__init__.py": ""}, "NumPy alone"),
    "micro, heavy": ({"micro.py": "def f():\n    import torch"}, "NumPy alone"),
    "micro imported": ({"cli.py": "from .micro import forward", "micro.py": ""}, "nothing may import"),
    "micro imported by the front door": ({"__init__.py": "from . import micro", "micro.py": ""}, "nothing may import"),
}


@pytest.mark.parametrize("files, message", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_planted_violation_is_found(files, message):
    messages = problems(files)
    assert any(message in problem for problem in messages), messages


# ------------------------------------------------------------------ what importing loads, and what is at the top level


def loaded_by(statement):
    """Top-level names of the foreign packages that a statement loads in a fresh interpreter."""
    code = (
        "import sys, json\nbefore = set(sys.modules)\n"
        f"{statement}\n"
        "print(json.dumps(sorted({n.split('.')[0] for n in set(sys.modules) - before})))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {n for n in json.loads(result.stdout) if n not in sys.stdlib_module_names and n != "__mp_main__"}


def test_every_file_imports_with_numpy_alone():
    """Whoever has only NumPy can import every file, except scikit-learn's estimator; heavier packages come late."""
    assert "safetensors" in loaded_by("import safetensors.numpy"), "the check cannot see what is loaded"
    no_room = "assert not [name for name in sys.modules if name.startswith('lora_np.')]"
    assert loaded_by(f"import lora_np\n{no_room}") <= {"lora_np", "numpy"}
    modules = [".".join(("lora_np", *module_name(path))) for path in sorted(package_files())]
    modules = [name.removesuffix(".__init__") for name in modules if not name.endswith(("__main__", "tasks.estimator"))]
    assert len(modules) > 30
    assert loaded_by(f"import {', '.join(modules)}") == {"lora_np", "numpy"}


def test_every_name_that_is_offered_exists():
    """Every room lists its names; those of the package come from the rooms when they are first used."""
    rooms = sorted(path for path in package_files() if path.count("/") == 1 and path.endswith("/__init__.py"))
    for name in ["lora_np", *(f"lora_np.{module_name(path)[0]}" for path in rooms)]:
        names, offered = import_module(name).__all__, {}
        exec(f"from {name} import *", offered)  # AttributeError for a name that is not there
        assert sorted(names) == sorted(offered.keys() - {"__builtins__"}), name


def test_nothing_else_is_at_the_top_level():
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    allowed = {"README.md", "requirements.txt", "lora_np", "notebooks", "tests", "figures"}
    allowed |= {"pyproject.toml", "LICENSE", ".gitignore", ".ci", ".github", ".pre-commit-config.yaml"}
    assert {line.split("/")[0] for line in tracked.splitlines()} - allowed == set()
