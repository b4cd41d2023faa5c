"""This tree against another one of the same package, such as an older commit, in turn: the pocket model's runs as a
person meets them, on quiet cores and beside a process that keeps one busy.

    git worktree add /somewhere/before COMMIT
    python -m diffexplore.bench.against /somewhere/before --rounds 7 --threads 2

Each side is a process of its own that has its model open and does one thing when it is told to. Of each thing the
median of the ratios of pairs is printed, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from pathlib import Path

from diffexplore.bench.cost import busy

__all__ = ["main"]

THINGS = {
    "run": "a run of 20 steps", "four": "four columns together", "compare": "Compare.run() of four",
    "explorer": "Explorer.run()", "shown": "its seconds beyond its run's",
}  # fmt: skip

SIDE = """
import sys, time
import diffexplore as dx
model = dx.load(reuse=0, **(dict(threads=int(sys.argv[1])) if sys.argv[1].isdigit() else
                            dict(threads=sys.argv[1]) if sys.argv[1].isalpha() else {}))
one = dx.Settings(prompt="a fox in the snow at noon", steps=20, guidance=5.0, seed=7)
four = [one.replace(seed=seed) for seed in range(4)]
made = {}
def explorer():
    if "e" not in made:
        made["e"] = dx.Explorer(model, prompt=one.prompt, steps=20, guidance=5.0, seed=7)
    return made["e"]
def compare():
    if "c" not in made:
        columns = {str(seed): {"seed": seed} for seed in range(4)}
        made["c"] = dx.Compare(columns, model, prompt=one.prompt, steps=20, guidance=5.0)
    return made["c"]
def shown():
    start = time.perf_counter()
    trace = explorer().run()
    return time.perf_counter() - start - trace.seconds
do = {"run": lambda: model.trace(one), "four": lambda: model.trace_many(four), "compare": lambda: compare().run(),
      "explorer": lambda: explorer().run(), "shown": shown}
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    took = do[line.strip()]()
    print(took if line.strip() == "shown" else time.perf_counter() - start, flush=True)
"""


class Side:
    """One tree, in a process."""

    def __init__(self, tree: Path, threads: str = "") -> None:
        """The package in a folder, its model opened on so many `threads`; "": as it is by itself."""
        environment = {**os.environ, "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1", "DIFFEXPLORE_TIMES": "off"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SIDE, threads or "-"], env=environment, cwd=tree, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._open = False

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("one of the sides has ended, see above")
        return line.strip()

    def seconds(self, thing: str) -> float:
        """Do it, and what it took."""
        assert self.process.stdin is not None
        if not self._open:
            self._open = bool(self._answer())
        self.process.stdin.write(f"{thing}\n")
        self.process.stdin.flush()
        return float(self._answer())


def main(given: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m diffexplore.bench.against", description=__doc__.split("\n")[0])
    parser.add_argument("tree", type=Path, help="a folder that has the other package")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of each (default: %(default)s)")
    parser.add_argument("--threads", default="", help="how this tree opens its model: a number, torch or auto")
    parser.add_argument("--things", nargs="+", default=list(THINGS), choices=list(THINGS))
    asked = parser.parse_args(given)
    sides = [Side(Path(__file__).parents[2], asked.threads), Side(asked.tree.resolve())]
    try:
        for where, load in (("quiet", contextlib.nullcontext), ("one core busy", busy)):
            with load():
                for thing in asked.things:
                    pairs = [tuple(side.seconds(thing) for side in sides) for _ in range(asked.rounds + 1)][1:]
                    ratios = [ours / before for ours, before in pairs]
                    ours, before = (statistics.median(one) for one in zip(*pairs, strict=True))
                    print(
                        f"{where:14} {THINGS[thing]:30} {ours:7.3f} s {before:7.3f} s {statistics.median(ratios):6.3f}"
                        f"   ({min(ratios):.3f} .. {max(ratios):.3f})", flush=True,
                    )  # fmt: skip
    finally:
        for side in sides:
            side.process.kill()
            side.process.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
