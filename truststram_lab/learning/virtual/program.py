"""A module as a program over many clients: traced once, each operation batched.

Layers with a rule of ``rules`` take it; any other operation goes through torch.func.vmap by
itself. A module that torch.fx cannot trace goes through vmap as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from .draws import DrawnDropout, dropped
from .rules import RULES

__all__ = ["Drop", "Program", "program_of"]

#: (shape of one row's mask, rate) -> which values stay, (C, B, *shape)
Drop = Callable[[tuple[int, ...], float], torch.Tensor]
#: (stacked weights by name, (C, B, ...), masks) -> outputs (C, B, ...)
Program = Callable[[Mapping[str, torch.Tensor], torch.Tensor, Drop], torch.Tensor]


def program_of(module: nn.Module, dropouts: Sequence[tuple[tuple[int, ...], float]]) -> Program:
    """The program of a module, in its mode (training or not).

    Args:
        dropouts: of one pass, in order, as ``draws.dropout_shapes``.
    """
    try:
        graph = _Tracer().trace(module)
    except Exception:  # noqa: BLE001  (tracing runs the module's own code on proxies)
        return _whole(module, dropouts)
    if sum(node.op == "placeholder" for node in graph.nodes) != 1:
        return _whole(module, dropouts)
    return _Traced(module, graph).run


class _Tracer(fx.Tracer):
    """Goes into everything but single layers, so that no dropout hides in a leaf."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:  # noqa: ARG002
        return type(module) in RULES or (
            type(module).__module__.startswith("torch.nn") and not any(module.children())
        )


def _whole(module: nn.Module, dropouts: Sequence[tuple[tuple[int, ...], float]]) -> Program:
    def run(weights: Mapping[str, torch.Tensor], x: torch.Tensor, drop: Drop) -> torch.Tensor:
        training = module.training
        masks = [drop(shape, rate) for shape, rate in dropouts] if training else []

        def one(own: Any, rows: torch.Tensor, kept: Sequence[torch.Tensor]) -> torch.Tensor:
            rest = iter(kept)
            with DrawnDropout(lambda value, rate: dropped(value, next(rest), rate)):
                out: torch.Tensor = functional_call(module, own, (rows,))
            return out

        out: torch.Tensor = vmap(one)(dict(weights), x, masks)
        return out

    return run


class _Traced:
    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        self._module = module
        self._layers = dict(module.named_modules())
        self._nodes = list(graph.nodes)
        self._names = {
            name: [key for key, _ in layer.named_parameters()]
            + [key for key, _ in layer.named_buffers()]
            for name, layer in self._layers.items()
        }

    def run(self, weights: Mapping[str, torch.Tensor], x: torch.Tensor, drop: Drop) -> torch.Tensor:
        values: dict[fx.Node, Any] = {}
        for node in self._nodes:
            if node.op == "placeholder":
                values[node] = x
            elif node.op == "get_attr":
                values[node] = weights[str(node.target)]
            elif node.op == "output":
                out: torch.Tensor = fx.map_arg(node.args[0], values.__getitem__)
                return out
            else:
                args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = self._apply(node, args, kwargs, weights, drop)
        raise AssertionError("A graph ends in its output.")

    def _apply(
        self,
        node: fx.Node,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        weights: Mapping[str, torch.Tensor],
        drop: Drop,
    ) -> Any:
        if node.op == "call_module":
            name = str(node.target)
            layer = self._layers[name]
            own = {key: weights[f"{name}.{key}" if name else key] for key in self._names[name]}
            return _layer(layer, own, args, kwargs, drop)
        if node.target is functional.dropout:
            return _drop_call(args, kwargs, drop)
        if node.op == "call_method":
            return _operation(
                lambda value, *rest, **named: getattr(value, str(node.target))(*rest, **named),
                str(node.target),
                args,
                kwargs,
            )
        assert callable(node.target)
        return _operation(node.target, getattr(node.target, "__name__", ""), args, kwargs)


def _layer(
    layer: nn.Module,
    own: dict[str, torch.Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    drop: Drop,
) -> Any:
    if isinstance(layer, nn.Dropout):
        return _dropped(args[0], layer.p, drop) if layer.training else args[0]
    rule = RULES.get(type(layer))
    if rule is not None and len(args) == 1 and not kwargs and _plain(layer):
        return rule(layer, own, args[0])
    return vmap(lambda mine, given, named: functional_call(layer, mine, given, named))(
        own, args, kwargs
    )


def _plain(layer: nn.Module) -> bool:
    # An inplace layer would write into what autograd keeps, Flatten(0) would mix rows.
    return not getattr(layer, "inplace", False) and getattr(layer, "start_dim", 1) >= 1


def _dropped(x: torch.Tensor, rate: float, drop: Drop) -> torch.Tensor:
    return dropped(x, drop(tuple(x.shape[2:]), rate), rate) if rate else x


def _drop_call(args: tuple[Any, ...], kwargs: dict[str, Any], drop: Drop) -> torch.Tensor:
    named = {**dict(zip(("input", "p", "training"), args, strict=False)), **kwargs}
    if not named.get("training", True):
        out: torch.Tensor = named["input"]
        return out
    return _dropped(named["input"], named.get("p", 0.5), drop)


#: What is the same for all clients: asked of the first.
_SHAPES = frozenset({"size", "dim", "ndimension", "numel", "__len__", "len"})
_BY_ELEMENT = frozenset(
    {"relu", "tanh", "sigmoid", "gelu", "silu", "add", "sub", "mul", "truediv", "neg", "exp"}
)


def _operation(
    call: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    tensors: list[torch.Tensor] = []

    def note(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            tensors.append(value)
            return _Place(len(tensors) - 1)
        return value

    held = _map((args, kwargs), note)
    if not tensors:
        return call(*args, **kwargs)
    shape = name == "getattr" and args[1] in ("shape", "ndim", "dtype", "device")
    if shape or name in _SHAPES:
        some, named = _map(held, lambda v: tensors[v.at][0] if isinstance(v, _Place) else v)
        return call(*some, **named)
    if name in _BY_ELEMENT and len({tensor.ndim for tensor in tensors}) == 1:
        return call(*args, **kwargs)

    def one(*values: torch.Tensor) -> Any:
        some, named = _map(held, lambda v: values[v.at] if isinstance(v, _Place) else v)
        return call(*some, **named)

    return vmap(one)(*tensors)


class _Place:
    """Where a tensor stood among the arguments."""

    def __init__(self, at: int) -> None:
        self.at = at


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    if (isinstance(value, tuple) and type(value) is tuple) or isinstance(value, list):
        return type(value)(_map(part, change) for part in value)
    if isinstance(value, dict):
        return {key: _map(part, change) for key, part in value.items()}
    return change(value)
