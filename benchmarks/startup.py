"""CPU time of `parallelchange --help` beside that of `python -c "import click"`, measured in turn."""

import json
import resource
import statistics
import subprocess
import sys

RUNS = 15


def cpu(command: list[str]) -> float:
    """User and system seconds of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def main() -> None:
    """Print both medians and their ratio."""
    ours = [sys.executable, "-m", "parallelchange", "--help"]
    theirs = [sys.executable, "-c", "import click"]
    pairs = [(cpu(ours), cpu(theirs)) for _ in range(RUNS + 1)][1:]
    median_ours, median_theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    figures = {"help_s": round(median_ours, 4), "import_click_s": round(median_theirs, 4)}
    print(json.dumps({**figures, "ratio": round(median_ours / median_theirs, 2), "bound": 4.0}))


if __name__ == "__main__":
    main()
