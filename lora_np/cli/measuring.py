"""Commands that measure: gradcheck, bench."""

from ..bench import RUNGS, WORKS, bench, format_tables, parse_peers, parse_rung, to_dicts
from ..reference import TOLERANCE, failures, format_rows, gradcheck, rows_to_dicts
from .shared import json_writer, print_now


def add_commands(command):
    check = command("gradcheck", run_gradcheck, "check every backward pass against central differences")
    check.add_argument("--json", metavar="FILE", help="also write the rows as JSON")

    timing = command("bench", run_bench, "time lora_np beside PyTorch and JAX on the same work")
    text = "torch, compile, jax, NAME=DIR for another checkout of lora_np (default: those installed); none: no peer"
    timing.add_argument("--peers", nargs="*", action="extend", metavar="PEER", help=text)
    text = "model sizes: a width of the ladder (64 128 256 512 768), or C,layers,heads,T,B,V (default: the ladder)"
    timing.add_argument("--rungs", nargs="+", action="extend", metavar="RUNG", help=text)
    timing.add_argument("--work", nargs="+", action="extend", metavar="KIND", help="kinds of work (default: all seven)")
    timing.add_argument("--threads", type=int, metavar="N", help="of every side (default: one per core)")
    timing.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default 5)")
    timing.add_argument("--seed", type=int, default=0, metavar="N")
    text = "do not unset variables that choose a library's kernels, such as OPENBLAS_CORETYPE"
    timing.add_argument("--as-set", action="store_true", help=text)
    timing.add_argument("--json", metavar="FILE", help="also write every number as JSON")


def run_gradcheck(arguments):
    write_as_json = json_writer(arguments.json)
    rows = gradcheck()
    print(format_rows(rows))
    write_as_json(rows_to_dicts(rows))
    failed = failures(rows)
    print(f"{len(rows) - len(failed)} of {len(rows)} rows at most {TOLERANCE:g}")
    return 1 if failed else 0


def run_bench(arguments):
    peers, absent = parse_peers(arguments.peers)
    rungs = RUNGS if arguments.rungs is None else [parse_rung(text) for text in arguments.rungs]
    write_as_json = json_writer(arguments.json)
    if absent:
        print_now("left out: " + "; ".join(absent))
    what = rungs, arguments.work or tuple(WORKS), peers
    how = arguments.threads, arguments.rounds, arguments.seed, arguments.as_set
    rows, setting = bench(*what, *how, report=print_now)
    print("\n" + format_tables(rows, setting, peers))
    write_as_json(to_dicts(rows, setting, peers))
    return 1 if any(row.failed for row in rows) else 0
