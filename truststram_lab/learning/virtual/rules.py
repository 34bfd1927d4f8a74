"""Layers of many clients at once: each takes (C, B, ...) and weights stacked to (C, ...).

C clients, B rows each. Written by hand where a batched product beats torch.func.vmap's own rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .draws import NoRule

__all__ = ["RULES", "Rule", "Weights"]

#: the layer's own names -> stacked weights
Weights = Mapping[str, torch.Tensor]
Rule = Callable[[Any, Weights, torch.Tensor], torch.Tensor]


def linear(layer: nn.Linear, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """(C, B, ..., inputs) -> (C, B, ..., outputs)."""
    matrix = weights["weight"].transpose(1, 2)
    flat = x.reshape(len(x), -1, x.shape[-1])
    if "bias" in weights:
        out = torch.baddbmm(weights["bias"].unsqueeze(1), flat, matrix)
    else:
        out = torch.bmm(flat, matrix)
    return out.view(*x.shape[:-1], layer.out_features)


def convolution(layer: nn.Conv1d | nn.Conv2d, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """(C, B, channels, ...) -> (C, B, channels, ...).

    Raises:
        NoRule: padding that is no zeros.
    """
    if layer.padding_mode != "zeros":
        raise NoRule(f"padding mode {layer.padding_mode}")
    flat = isinstance(layer, nn.Conv1d)
    if layer.groups > 1 or isinstance(layer.padding, str):
        return _grouped(layer, weights, x)
    # One dimension is two of which the first has size 1.
    kernel, stride, dilation = (
        (1, *of) if flat else of for of in (layer.kernel_size, layer.stride, layer.dilation)
    )
    padding = (0, *layer.padding) if flat else layer.padding
    clients, rows = x.shape[:2]
    images = x.reshape(clients * rows, x.shape[2], *([1] if flat else []), *x.shape[3:])
    # Convolution as one product a client (im2col): patches (C B, channels * kernel, places).
    patches = functional.unfold(images, kernel, dilation, padding, stride)
    matrix = weights["weight"].reshape(clients, 1, layer.out_channels, -1)
    out = matrix @ patches.view(clients, rows, *patches.shape[1:])
    if "bias" in weights:
        out = out + weights["bias"].view(clients, 1, -1, 1)
    if flat:
        return out
    sizes = [
        (size + 2 * pad - gap * (width - 1) - 1) // step + 1
        for size, pad, gap, width, step in zip(
            x.shape[3:], padding, dilation, kernel, stride, strict=True
        )
    ]
    return out.view(clients, rows, layer.out_channels, *sizes)


def _grouped(layer: Any, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    clients, rows = x.shape[:2]
    convolve = functional.conv1d if isinstance(layer, nn.Conv1d) else functional.conv2d
    wide = x.transpose(0, 1).reshape(rows, clients * x.shape[2], *x.shape[3:])
    bias = weights["bias"].flatten() if "bias" in weights else None
    out = convolve(
        wide,
        weights["weight"].flatten(0, 1),
        bias,
        layer.stride,
        layer.padding,
        layer.dilation,
        clients * layer.groups,
    )
    return out.view(rows, clients, layer.out_channels, *out.shape[2:]).transpose(0, 1)


def embedding(layer: nn.Embedding, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """int64 (C, B, ...) -> (C, B, ..., width).

    Raises:
        NoRule: rows are scaled to a norm on use.
    """
    if layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse:
        raise NoRule("an Embedding with max_norm, scale_grad_by_freq or sparse")
    table = weights["weight"]
    words = table.shape[1]
    # An index beyond a client's table would read the next client's.
    if x.numel() and (int(x.max()) >= words or int(x.min()) < 0):
        raise IndexError(f"tokens from {int(x.min())} to {int(x.max())} of {words}")
    first = torch.arange(len(table), device=x.device).view(-1, *[1] * (x.ndim - 1)) * words
    places, words_of_all = x + first, table.flatten(0, 1)
    if x.is_cpu:
        # The same sums at half the cost; on an accelerator they would have no fixed order.
        out = words_of_all.index_select(0, places.flatten()).view(*x.shape, -1)
    else:
        out = functional.embedding(places, words_of_all)
    if layer.padding_idx is not None:
        out = torch.where((x == layer.padding_idx).unsqueeze(-1), out.detach(), out)
    return out


def layer_norm(layer: nn.LayerNorm, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """Any (C, B, ..., normalized_shape)."""
    out = functional.layer_norm(x, layer.normalized_shape, None, None, layer.eps)
    ends = len(layer.normalized_shape)
    return _affine(out, weights, x.ndim - 1 - ends, 0)


def group_norm(layer: nn.GroupNorm, weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """(C, B, channels, ...)."""
    out = functional.group_norm(x.flatten(0, 1), layer.num_groups, None, None, layer.eps)
    return _affine(out.view(x.shape), weights, 1, x.ndim - 3)


def _affine(x: torch.Tensor, weights: Weights, before: int, after: int) -> torch.Tensor:
    def fit(value: torch.Tensor) -> torch.Tensor:
        return value.reshape(len(value), *[1] * before, *value.shape[1:], *[1] * after)

    if "weight" in weights:
        x = x * fit(weights["weight"])
    return x + fit(weights["bias"]) if "bias" in weights else x


def by_element(layer: nn.Module, _: Weights, x: torch.Tensor) -> torch.Tensor:
    """A layer that does not look at shapes."""
    out: torch.Tensor = layer(x)
    return out


def by_row(layer: nn.Module, _: Weights, x: torch.Tensor) -> torch.Tensor:
    """A layer without weights that takes each row by itself, such as pooling."""
    out: torch.Tensor = layer(x.flatten(0, 1))
    return out.view(*x.shape[:2], *out.shape[1:])


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Embedding: embedding,
    nn.LayerNorm: layer_norm,
    nn.GroupNorm: group_norm,
    **dict.fromkeys(
        (
            nn.ReLU,
            nn.Tanh,
            nn.Sigmoid,
            nn.GELU,
            nn.SiLU,
            nn.ELU,
            nn.LeakyReLU,
            nn.Softplus,
            nn.Identity,
        ),
        by_element,
    ),
    **dict.fromkeys(
        (
            nn.MaxPool1d,
            nn.MaxPool2d,
            nn.AvgPool1d,
            nn.AvgPool2d,
            nn.AdaptiveAvgPool1d,
            nn.AdaptiveAvgPool2d,
            nn.Flatten,
        ),
        by_row,
    ),
}
