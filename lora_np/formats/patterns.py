"""Match an adapter file's regular expressions against layer names as Python's `re` does, but with a time limit.

`re` cannot be interrupted, and a pattern such as `(a|a)*b` can take exponential time. If all patterns are literal and
cheap to match, this process matches them; otherwise, a child process runs this file with a time limit.
"""

import json
import math
import re
import sys
import warnings

SECONDS = 5.0  # time limit for all patterns of a file
PATIENCE = 20  # on a busy machine, SECONDS of CPU time may take up to this many times as long in real time
LIMITED = """
import runpy, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, 2 * (int(sys.argv[2]),))
except (ImportError, ValueError, OSError):
    pass
runpy.run_path(sys.argv[1], run_name="__main__")
"""
LITERAL = re.compile(r"(\w|-|\.|\\\.)*", re.ASCII)
CHEAP = 10**7  # limit on number of patterns × total length of all names × length of the longest name


def match_patterns(patterns, names):
    """The names that each pattern matches.

    Parameters
    ----------
    patterns : list of (pattern, before, after, how): before + pattern + after is matched with the `re` function `how`,
        "match" or "fullmatch"
    names : list of str

    Returns
    -------
    list with one item per pattern: a dict, name -> the group "idx" or None, or an error message about the pattern, as a
    str. The list ends before the first pattern whose matching exceeded the time limit.
    """
    whole = [(before + pattern + after, how) for pattern, before, after, how in patterns]
    work = len(whole) * sum(map(len, names)) * max(map(len, names), default=0)
    if work <= CHEAP and all(LITERAL.fullmatch(pattern) for pattern, *_ in patterns):
        found = [matched(*one, names) for one in whole]
    else:
        found = in_a_child(__file__, [whole, names], SECONDS)
    return [rows if isinstance(rows, str) else {names[i]: block for i, block in rows} for rows in found]


def matched(pattern, how, names):
    """Return [(index of a name, group "idx")] for the names that match, or an error message about the pattern."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            match = getattr(re.compile(pattern), how)
        found = [(i, match(name)) for i, name in enumerate(names)]
        return [(i, one.groupdict().get("idx")) for i, one in found if one]
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        return str(error)


def in_a_child(script, value, seconds):
    """Run a script in a child process with a limit on CPU time, and return the values that it writes as lines of JSON.

    The script reads `value` as JSON from stdin, and can import only the standard library. If the script is stopped at
    the time limit, some values may be missing.
    """
    import subprocess
    from importlib.util import find_spec

    command = [sys.executable, "-I", "-S", "-c", LIMITED, script, str(math.ceil(seconds))]
    seconds *= PATIENCE if find_spec("resource") else 1  # Windows cannot limit CPU time
    try:
        out = subprocess.run(command, input=json.dumps(value).encode(), capture_output=True, timeout=seconds).stdout
    except subprocess.TimeoutExpired as late:
        out = late.stdout or b""
    return [json.loads(line) for line in out.split(b"\n")[:-1]]  # the last line may be incomplete


if __name__ == "__main__":
    all_patterns, all_names = json.load(sys.stdin)
    for one in all_patterns:
        sys.stdout.write(json.dumps(matched(*one, all_names)) + "\n")
        sys.stdout.flush()
