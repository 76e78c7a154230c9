"""The picture of the README and of the first page: He against Glorot over 100 layers of ReLU.

python docs/picture.py [--tiny] [--out FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jaxinit as ji

HERE = Path(__file__).parent
FULL = {"depth": 100, "width": 512, "seeds": 64}
TINY = {"depth": 6, "width": 32, "seeds": 4}


def main(out: Path = HERE / "_static", *, tiny: bool = False) -> list[Path]:
    size = TINY if tiny else FULL
    records = {}
    for name, variance in (("He: σw² = 2", 2.0), ("Glorot: σw² = 1", 1.0)):
        network = ji.Network(size["depth"], size["width"], "relu", weight_variance=variance)
        records[name] = [ji.simulate(network, size["seeds"]), ji.meanfield.propagate(network)]
    paths = []
    for theme, name in (("light", "picture.png"), ("dark", "picture-dark.png")):
        figure = ji.plot.depth_profiles(records, ("log_second_moment", "log_grad_second_moment"), theme=theme)
        paths.append(ji.plot.save(figure, out / name, dpi=110))
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a smaller size, for a try")
    parser.add_argument("--out", type=Path, default=HERE / "_static")
    arguments = parser.parse_args()
    print(*main(arguments.out, tiny=arguments.tiny), sep="\n")
