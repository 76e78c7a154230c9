"""Parameters that a user holds: a tree of any make, or an Orbax checkpoint, as a model's own trees."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxinit._core import checks

__all__ = ["fitted", "restore"]

#: The file by which a folder is known for a checkpoint of a tree.
_MARK = "_METADATA"
#: Folders below a run in which a manager of checkpoints keeps them: step, item.
_DEPTH = 2
_SHOWN = 3


def restore(path: str | os.PathLike[str]) -> Any:
    """The tree in an Orbax checkpoint, as NumPy arrays in dicts, whatever devices it was saved from.

    What `orbax.checkpoint.StandardCheckpointer`, `PyTreeCheckpointer` and `CheckpointManager` write for a tree: linen
    variables or parameters, a TrainState, an nnx.State or its pure dict. Nothing is executed to read it.

    Args:
        path: the checkpoint's folder; or one with a single checkpoint in it or one folder deeper, such as the folder of
            a CheckpointManager that has kept one step.

    Returns:
        Nested dicts (lists where lists were saved), to be handed to `jaxinit.reinit`, `jaxinit.calibrate` or
        `jaxinit.watch`. `jaxinit.probe(model, x, seeds=1, params=path)` restores by itself.

    Raises:
        ImportError: Orbax is not installed.
        ValueError: there is no checkpoint, there are several, or the one there cannot be read.

    Example:
        >>> import tempfile, pathlib, numpy as np, orbax.checkpoint as ocp
        >>> from jaxinit.models import restore
        >>> folder = pathlib.Path(tempfile.mkdtemp()) / "step_100"
        >>> ocp.PyTreeCheckpointer().save(folder, {"params": {"kernel": np.ones((2, 3))}})
        >>> restore(folder)["params"]["kernel"].shape
        (2, 3)
    """
    return _restore("restore", "path", path)


def _restore(where: str, argument: str, path: str | os.PathLike[str]) -> Any:
    folder = _found(where, argument, Path(path).absolute())
    try:
        import orbax.checkpoint as ocp  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(f"`{where}` reads checkpoints by Orbax: pip install orbax-checkpoint") from error
    reader = ocp.PyTreeCheckpointer()
    try:
        about = reader.metadata(folder)
        tree = getattr(about, "item_metadata", about)
        tree = getattr(tree, "tree", tree)
        as_arrays = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return reader.restore(folder, restore_args=as_arrays)
    except Exception as error:  # what a damaged file raises is no promise of Orbax
        first = (str(error).strip().splitlines() or [""])[0]
        raise checks.bad(
            where, argument, "the folder of a checkpoint that Orbax can read", str(path),
            f"It failed with {type(error).__name__}: {first}",
        ) from error  # fmt: skip


def _found(where: str, argument: str, folder: Path) -> Path:
    """The folder itself, or the only checkpoint below it."""
    if (folder / _MARK).is_file():
        return folder
    if not folder.is_dir():
        raise checks.bad(
            where, argument, "the folder of an Orbax checkpoint", str(folder), "There is no such folder."
        )
    below = sorted({found.parent for n in range(1, _DEPTH + 1) for found in folder.glob("*/" * n + _MARK)})
    if len(below) == 1:
        return below[0]
    if below:
        names = [str(each.relative_to(folder)) for each in below]
        way_out = (
            f"There are {len(below)} in it: {', '.join(names[:_SHOWN])}{', ...' * (len(names) > _SHOWN)}."
        )
    else:
        way_out = f"No {_MARK} is in it, nor one or two folders below."
    raise checks.bad(where, argument, "the folder of one Orbax checkpoint", str(folder), way_out)


def fitted(where: str, given: Any, params: Any, state: Any) -> tuple[Any, Any]:
    """`given` as the trees `(params, state)` of a model, whose shapes these are.

    Args:
        where: the function that errors speak of; their argument is `params`.
        given: a tree, or the path of a checkpoint: the parameters alone, or linen variables or a TrainState with
            them under "params" and the collections of `state` beside them; an nnx.State or its pure dict, of the
            parameters alone or of everything. Paths are compared as text, so lists and dicts of numbers are one.

    Raises:
        TypeError: not a tree of arrays.
        ValueError: a parameter or variable is missing, too many, or of another shape; the first few are named.
    """
    tree = _restore(where, "params", given) if isinstance(given, (str, os.PathLike)) else given
    there, trained, kept = _leaves(tree), _leaves(params), _leaves(state)
    if not there or () in there:
        raise checks.wrong_type(
            where, "params", "a tree of arrays, or the path of an Orbax checkpoint", given
        )
    inner = {path[1:]: leaf for path, leaf in there.items() if path[0] == "params"}
    own = inner if inner and "params" not in {path[0] for path in trained} else there
    extra = [path for path in own if path not in trained and (own is inner or path not in kept)]
    faults = [
        *_faults(trained, own),
        *_faults(kept, there),
        *(f"{_name(p)} is not the model's" for p in extra),
    ]
    if faults:
        left = f" and {len(faults) - _SHOWN} more" * (len(faults) > _SHOWN)
        beside = (
            " What is not trained lies beside the parameters: {'params': ..., 'batch_stats': ...} of linen, "
            "nnx.state(model) of nnx."
        )
        raise checks.bad(
            where, "params", "those of the model", f"{len(there)} arrays",
            f"{'; '.join(faults[:_SHOWN])}{left}.{beside if kept else ''}",
        )  # fmt: skip
    return _filled(params, trained, own), _filled(state, kept, there)


def _faults(wanted: Mapping[Any, Any], there: Mapping[Any, Any]) -> list[str]:
    missing = [f"{_name(path)} is missing" for path in wanted if path not in there]
    return missing + [
        f"{_name(path)} is {np.shape(there[path])} and should be {leaf.shape}"
        for path, leaf in wanted.items()
        if path in there and np.shape(there[path]) != leaf.shape
    ]


def _filled(tree: Any, wanted: Mapping[Any, Any], there: Mapping[Any, Any]) -> Any:
    leaves = [_array(there[path], like) for path, like in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _array(value: Any, like: Any) -> Any:
    if jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key) and not isinstance(value, jax.Array):
        return jax.random.wrap_key_data(jnp.asarray(value))
    return jnp.asarray(value)


def _leaves(tree: Any) -> dict[tuple[str, ...], Any]:
    """Leaves by path, in the order of the tree; what boxes an array is no part of the path."""
    out = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(nn.unbox(tree)):
        names = tuple(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path)
        out[names[:-1] if names[-1:] in (("value",), (".value",)) and len(names) > 1 else names] = leaf
    return out


def _name(path: tuple[str, ...]) -> str:
    return "/".join(path)
