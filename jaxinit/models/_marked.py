"""Any model as the pair of functions that a probe traces: drawn from a key, applied with marks."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
from flax import nnx

from jaxinit._core import checks
from jaxinit.models._functional import Model, _parameters

__all__ = ["Marked", "marked"]

_WAY_OUT = (
    "Pass a linen module instance, an nnx factory such as `lambda rngs: MyModule(rngs=rngs)`, an nnx module "
    "(one draw, seeds=1), a pair (init, apply) of functions, or jaxinit.models.from_functions(init, apply)."
)


@dataclasses.dataclass(frozen=True)
class Marked:
    """A model whose `apply`, when traced, leaves marks at the inputs and outputs of its modules.

    Attributes:
        name: what to call it.
        init: `(key, args) -> (params, state)`; `args` is the tuple of the call's positional arguments.
        apply: `(params, state, args, key) -> output`. The key feeds dropout and the like.
        given: parameters and state of a model that has been drawn already; `init` is then not called.
        marks: whether the model has modules to mark (plain functions do not).
        changes: what the latest trace of `apply` has seen the model change in itself, in sentences: attributes that
            are no variables, shapes and dtypes of variables. A compiled program does neither.
        untold: where the model was to be told that it is being trained and takes no notice, a sentence that says so.
    """

    name: str
    init: Callable[[Any, tuple[Any, ...]], tuple[Any, Any]]
    apply: Callable[[Any, Any, tuple[Any, ...], Any], Any]
    given: tuple[Any, Any] | None = None
    marks: bool = True
    changes: list[str] = dataclasses.field(default_factory=list)
    untold: str = ""


def marked(
    model: Any,
    *,
    train: bool = False,
    method: Any = None,
    rngs: Mapping[str, Any] | None = None,
    where: str = "marked",
) -> Marked:
    """The pair of functions behind a model, with its modules marked; the model itself is left as it was.

    Args:
        model: a linen module, an nnx factory `rngs -> module`, an nnx module, a pair (init, apply) with
            `init(key)` or `init(key, *args)` and `apply(params, *args)`, or a `Model`.
        train: whether the model is told that it is being trained.
        method: the method to call instead of `__call__`: a name, or a function of the module.
        rngs: streams of random numbers that stay the same for every key ({"dropout": key}).
        where: the function that errors speak of.

    Raises:
        TypeError: the model is none of these, or a class instead of an instance.
    """
    from jaxinit.models import _marked_linen, _marked_nnx

    fixed = _streams(rngs, where)
    if isinstance(model, nn.Module):
        check_method(where, type(model), method)
        return _marked_linen.of(model, train, method, fixed)
    if isinstance(model, nnx.Module):
        _no_streams(fixed, where, "an nnx module")
        return _marked_nnx.of_instance(model, train, method, where)
    if inspect.isclass(model) and issubclass(model, nn.Module):
        raise checks.wrong_type(
            where, "model", "a linen module instance", model, f"Make one: {model.__name__}(...)."
        )
    if isinstance(model, Model) or _is_pair(model):
        if method is not None:
            raise checks.bad(where, "method", "None for a model of plain functions", method)
        _no_streams(fixed, where, "a model of plain functions")
        if isinstance(model, Model):
            return _of_model(model, train)
        if _positional(model[1]) == 1:
            rule = "a pair (init, apply) of functions, init(key) -> params and apply(params, x) -> output"
            raise checks.bad(
                where, "model", rule, "a second function of one argument", "The other way round?"
            )
        return _of_pair(*model, train=train)
    if callable(model):
        takes = _parameters(model)
        needed = [name for name, required in takes.items() if required and name != "rngs"]
        if "rngs" in takes and not needed:
            _no_streams(fixed, where, "an nnx model")
            return _marked_nnx.of_factory(model, train, method, where)
        if inspect.isclass(model) and issubclass(model, nnx.Module):
            call = f"{model.__name__}(..., rngs=rngs)"
            raise checks.wrong_type(
                where, "model", "a factory `rngs -> module`", model, f"Pass lambda rngs: {call}."
            )
    raise checks.wrong_type(where, "model", "a model", model, _WAY_OUT)


def check_method(where: str, module: type, method: Any) -> None:
    """Raises where `method` names none of the module's."""
    if isinstance(method, str) and not callable(getattr(module, method, None)):
        own = [name for name in vars(module) if callable(getattr(module, name)) and not name.startswith("_")]
        rule = f"the name of a method of {module.__name__}"
        raise checks.bad(where, "method", rule, method, checks.nearest(method, own) if own else "")


def _streams(rngs: Any, where: str) -> dict[str, Any]:
    if rngs is None:
        return {}
    if not isinstance(rngs, Mapping) or not all(isinstance(name, str) for name in rngs):
        rule = "a dict from names of streams to keys"
        raise checks.wrong_type(where, "rngs", rule, rngs, 'For example {"dropout": jax.random.key(0)}.')
    return {name: checks.require_threefry(where, "rngs", key) for name, key in rngs.items()}


def _no_streams(streams: dict[str, Any], where: str, what: str) -> None:
    if streams:
        raise checks.bad(
            where, "rngs", f"None for {what}, whose streams follow from the seed", sorted(streams)
        )


def _is_pair(model: Any) -> bool:
    return isinstance(model, tuple) and len(model) == 2 and all(callable(f) for f in model)


def _of_model(model: Model, train: bool) -> Marked:
    def single(args: tuple[Any, ...]) -> Any:
        return args[0] if len(args) == 1 else args

    return Marked(
        model.name,
        lambda key, args: model.init(None, key, single(args)),
        lambda params, state, args, key: model.apply(params, state, single(args), train, key)[0],
        marks=False,
    )


def _of_pair(init: Callable[..., Any], apply: Callable[..., Any], *, train: bool) -> Marked:
    """`init(key)` or `init(key, *args)`; `apply(params, *args)`, with a key where it has an argument for one."""
    alone = _positional(init) == 1
    names = list(_parameters(apply))
    random = next((name for name in ("key", "rng") if name in names), None)

    def run(params: Any, state: Any, args: tuple[Any, ...], key: Any) -> Any:
        if random is None:
            return apply(params, *args)
        if names.index(random) == 1:
            return apply(params, key, *args)
        return apply(params, *args, **{random: key})

    name = getattr(apply, "__name__", "functions")
    name = "functions" if name == "<lambda>" else name
    deaf = untold(
        name, "as functions of a pair are not told", "or pass a jaxinit.models.Model, whose apply is."
    )
    return Marked(
        name,
        lambda key, args: ((init(key) if alone else init(key, *args)), {}),
        run,
        marks=False,
        untold=deaf if train else "",
    )


def _positional(f: Callable[..., Any]) -> int | None:
    """How many positional arguments a function takes; None for any number, or when it does not say."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def untold(name: str, why: str, way_out: str) -> str:
    """The sentence on a model that takes no notice of `train=True`."""
    return f"train=True changes nothing in {name}, {why}. Leave it out, {way_out}"


def whole(node: Any) -> bool:
    """Nodes of a tree of arguments that marks do not look into: modules and variables."""
    return isinstance(node, (nn.Module, nnx.Module, nnx.Variable, nnx.Rngs))
