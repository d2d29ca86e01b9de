"""Draw the sample: `python -m oteo_core.sampledata OUT`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from oteo_core.sampledata.draw import draw_cells


def main(arguments: list[str] | None = None) -> int:
    """Draw the sample into a folder; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m oteo_core.sampledata", description="Draw white blood cells under two microscopes.")
    parser.add_argument("out", type=Path, help="folder to draw into")
    parser.add_argument("--count", type=int, default=360, help="pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="seed; the same gives the same bytes (default: %(default)s)")
    parser.add_argument("--size", type=int, default=112, help="width and height, pixels (default: %(default)s)")
    parser.add_argument("--no-flaws", action="store_true", help="leave out the copies and the broken file")
    given = parser.parse_args(arguments)
    try:
        drawn = draw_cells(given.out, count=given.count, seed=given.seed, size=given.size, flaws=not given.no_flaws)
    except (ValueError, OSError) as error:
        print(f"cannot draw: {error}", file=sys.stderr)
        return 2
    print(f"{len(drawn.images)} pictures and {len(drawn.unreadable)} broken file(s) in {drawn.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
