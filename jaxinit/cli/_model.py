"""Models and their inputs, named on a command line."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from jaxinit.cli import _options


def add(own: argparse.ArgumentParser, required: bool = True) -> None:
    """The options of commands that look into a model: which, and on what input."""
    own.add_argument("model", metavar="MODULE:NAME", help="package.module:name, or path/to/file.py:name")
    own.add_argument(
        "--input", required=required, type=_inputs, default=[], metavar="SHAPE[:int:N][,...]",
        help="arguments of the model: 32x784 draws N(0, 1), 4x128:int:1000 integers below 1000, a file.npy holds an "
        "array; the first axis counts examples",
    )  # fmt: skip


def _inputs(text: str) -> list[str]:
    parts = _options.split(text)
    if not all(parts):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty part: write shapes such as 32x784")
    return parts


def arguments(options: argparse.Namespace) -> tuple[Any, ...]:
    """The inputs: arrays, and shapes of those that are N(0, 1)."""
    return tuple(argument(text, n) for n, text in enumerate(options.input))


def argument(text: str, number: int) -> Any:
    """One argument of the model."""
    import jax
    import numpy as np

    if text.endswith(".npy"):
        return np.load(text, allow_pickle=False)
    shape, *kind = text.split(":")
    try:
        dims = tuple(int(n) for n in shape.split("x"))
        if min(dims) < 1 or (kind and (kind[0] != "int" or len(kind) != 2 or int(kind[1]) < 1)):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"--input {text!r}: write a shape such as 32x784, integers as 4x128:int:1000, or a file.npy"
        ) from None
    if kind:
        return np.random.default_rng(number).integers(0, int(kind[1]), dims, dtype=np.int32)
    return jax.ShapeDtypeStruct(dims, np.float32)


def load(text: str) -> Any:
    """The object that `package.module:name` or `file.py:name` stands for, made if it is a factory of no arguments."""
    place, _, name = text.rpartition(":")
    if not place or not name:
        raise ValueError(f"{text!r}: write MODULE:NAME, as in mypackage.models:Classifier or model.py:net")
    module = _from_file(Path(place)) if place.endswith(".py") else _imported(place)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            from jaxinit._core import checks

            known = [n for n in vars(value) if not n.startswith("_")]
            raise ValueError(f"{place!r} has no {part!r}. {checks.nearest(part, known)}")
        value = getattr(value, part)
    return value() if _takes_nothing(value) else value


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # where dataclasses look for their annotations
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _imported(place: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and place.startswith(error.name):
            raise ValueError(
                f"no module {place!r}: run this in the folder that holds it, or name a file, as in model.py:net"
            ) from None
        raise
    finally:
        sys.path.pop(0)


def _takes_nothing(value: Any) -> bool:
    """Whether it is a function or class that is called without arguments."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return False
    try:
        # nnx's metaclass hides the arguments of its classes
        wanted = list(
            inspect.signature(value.__init__ if inspect.isclass(value) else value).parameters.values()
        )
    except (TypeError, ValueError):
        return False
    wanted = wanted[1:] if inspect.isclass(value) else wanted
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not inspect.Parameter.empty or p.kind in variable for p in wanted)
