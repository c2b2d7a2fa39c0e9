"""Print the largest error of each group: the figures of the README come from here."""

from .comparison import LARGEST


def pytest_terminal_summary(terminalreporter):
    if not LARGEST:
        return
    terminalreporter.section("largest relative error against the oracles")
    for group, (error, name, tolerance) in sorted(LARGEST.items()):
        terminalreporter.write_line(f"{group:<42} {error:8.1e}  (at most {tolerance:.0e})  {name}")
