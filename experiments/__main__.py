"""An experiment from its configuration to its records, its figure and the table of its README.

python experiments NAME [--tiny] [--again] [--out DIR] [--data DATA] [--models NAME ...]
"""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from _common import draws, names, script, text  # noqa: E402  (beside this file, however it is called)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python experiments", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=names())
    parser.add_argument(
        "--tiny", action="store_true", help="seconds instead of minutes; the size of the tests"
    )
    parser.add_argument(
        "--again", action="store_true", help="only the figure and the table of records that are there"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the records (default: out, in the experiment's folder)"
    )
    parser.add_argument("--data", action="append", help="he_2015: digits, or an .npz file (may be repeated)")
    parser.add_argument(
        "--models", nargs="+", help="calibrate_zoo: only models whose names hold one of these"
    )
    options = parser.parse_args()
    folder = HERE / options.name
    out = options.out or folder / "out" / ("tiny" if options.tiny else "")
    target = (out if options.tiny else folder) / "figure.png"
    run = script(options.name, "run")
    found = script(options.name, "figure") if draws(options.name) else run
    takes = inspect.signature(run.main).parameters
    if options.data and "data" not in takes:
        parser.error(f"{options.name} has data of its own")
    if options.models and "models" not in takes:
        parser.error(f"{options.name} has no models to choose from")
    chosen = {"data": options.data, "models": options.models}
    given = {name: tuple(values) for name, values in chosen.items() if values}
    if options.again and "again" in takes:
        given["again"] = True
    if not options.again or "again" in takes:
        run.main(out, tiny=options.tiny, **given)
    if found is not run:
        print(found.main(out, target), file=sys.stderr)
    print(text(found.outcome(out)))


if __name__ == "__main__":
    main()
