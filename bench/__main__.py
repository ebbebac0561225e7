"""`python -m bench [deploy|warehouse|indicators] [options]`: one benchmark, or every one after the other."""

from __future__ import annotations

import sys

from bench import deploy, indicators, warehouse

BENCHMARKS = {"deploy": deploy.main, "warehouse": warehouse.main, "indicators": indicators.main}


def main(words: list[str]) -> int:
    if words and words[0] in BENCHMARKS:
        return BENCHMARKS[words[0]](words[1:])
    if words:
        print(f"bench: '{words[0]}' is none of {', '.join(BENCHMARKS)}; without a name all run, with their defaults.")
        return 2
    return max(run([]) for run in BENCHMARKS.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
