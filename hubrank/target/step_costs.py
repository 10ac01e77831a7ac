"""What a tuning step costs beside its matrix products, made less: frozen weights cast once, and on a CPU cheaper chances.

Of a step of MiniLM on a CPU with bfloat16 units less than a third is matrix products. The rest is work that a tuning loop
can do without: casting the same frozen weights in every step, drawing a number a value for dropout (15 %), and the checks of
attention kernels for rows without a key, which a tokenised text never has.

Imports torch; :mod:`hubrank.target.tuning` imports it late.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

__all__ = ["CheapChances", "cast_frozen"]

_LEVELS = 1 << 16
_NEVER = -1e30  # added to a score; finite, so that a row without any key comes out even and not as NaN


def cast_frozen(model: Any) -> None:
    """Cast the frozen weights of linear layers to bfloat16, in place.

    Autocast casts them to the same numbers in every step. What an embedding shares stays as it is: it would be read rounded.
    peft's casts of a LoRA's input to float32 go for the same reason: autocast casts it back.
    """
    shared = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    for module in model.modules():
        # GPT-2's Conv1D is a linear layer whose weights are kept the other way round.
        if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D":
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad and parameter.dtype == torch.float32 and id(parameter) not in shared:
                    parameter.data = parameter.data.to(torch.bfloat16)
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False


class CheapChances(TorchFunctionMode):  # type: ignore[misc]
    """While it is entered, dropout and the attention that has one take their chances from 16 random bits a value.

    For a CPU, whose own kernel draws a number of 53 bits a value, one by one. Probabilities are rounded to 1 / 65,536. The
    draws are this object's own: neither torch's nor numpy's random state is read or changed.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = np.random.Generator(np.random.SFC64(seed))

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of its own functions."""
        named = kwargs or {}
        if func is torch.nn.functional.dropout:
            return self._dropout(*args, **named)
        if func is torch.nn.functional.scaled_dot_product_attention and named.get("dropout_p", 0.0) > 0:
            return self._attention(func, *args, **named)
        return func(*args, **named)

    def _dropout(self, values: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:  # noqa: ARG002 -- torch's own names
        if not training or p == 0:
            return values
        if p >= 1:
            return values * 0
        return _Scaled.apply(values, self._kept(values.shape, p, values.dtype))

    def _attention(  # noqa: PLR0917 -- in torch's order
        self, func: Callable[..., Any], query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Any:  # fmt: skip
        if enable_gqa or query.ndim != 4 or dropout_p >= 1:
            return func(
                query, key, value, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale,
                enable_gqa=enable_gqa,
            )  # fmt: skip
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            query, key, value = query.to(kind), key.to(kind), value.to(kind)
        bias = _bias(attn_mask, query.shape[2], key.shape[2], is_causal)
        kept = self._kept((*query.shape[:3], key.shape[2]), dropout_p, query.dtype)
        return _Attention.apply(query, key, value, bias, kept, scale or query.shape[-1] ** -0.5)

    def _kept(self, shape: Sequence[int], p: float, dtype: Any) -> Any:
        """1 / (1 - p) where a value is kept, 0 where it is dropped."""
        count = math.prod(shape)
        words = self._random.integers(0, 1 << 64, size=-(-count // 4), dtype=np.uint64)
        bits = torch.from_numpy(words.view(np.int16))[:count]
        return (bits >= round(p * _LEVELS) - _LEVELS // 2).view(shape).to(dtype).mul_(1.0 / (1.0 - p))


def _bias(mask: Any, queries: int, keys: int, is_causal: bool) -> Any:
    """What is added to the scores, float32, [queries, keys] under any number of axes; None where all is seen."""
    if is_causal:
        mask = torch.ones(queries, keys, dtype=torch.bool).tril()
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape).masked_fill_(~mask, _NEVER)
    return mask.float().clamp(min=_NEVER)


class _Scaled(torch.autograd.Function):  # type: ignore[misc]
    """Values times constants of their shape."""

    @staticmethod
    def forward(ctx: Any, values: Any, factors: Any) -> Any:
        ctx.save_for_backward(factors)
        return values * factors

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        (factors,) = ctx.saved_tensors
        return gradient * factors, None


class _Attention(torch.autograd.Function):  # type: ignore[misc]
    """softmax(q k^T scale + bias) * kept @ v, the softmax in float32; q, k and v are [rows, heads, tokens, width]."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, bias: Any, kept: Any, scale: float) -> Any:  # noqa: PLR0917
        rows, heads, queries, width = query.shape
        keys = key.shape[2]
        q = (query * scale).reshape(rows * heads, queries, width)
        k = key.reshape(rows * heads, keys, width)
        v = value.reshape(rows * heads, keys, value.shape[3])
        scores = torch.bmm(q, k.transpose(1, 2)).float()
        if bias is not None:
            scores.view(rows, heads, queries, keys).add_(bias)
        shares = torch.softmax(scores, -1)
        kept = kept.view(rows * heads, queries, keys)
        seen = shares.to(query.dtype) * kept  # not in place: in float32 they are the same tensor
        ctx.save_for_backward(q, k, v, shares, seen, kept)
        ctx.scale, ctx.shape = scale, (rows, heads)
        return torch.bmm(seen, v).view(rows, heads, queries, value.shape[3])

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        q, k, v, shares, seen, kept = ctx.saved_tensors
        grad = gradient.reshape(q.shape[0], q.shape[1], v.shape[2])
        to_value = torch.bmm(seen.transpose(1, 2), grad)
        to_shares = torch.bmm(grad, v.transpose(1, 2)).mul_(kept).float()
        to_scores = torch._softmax_backward_data(to_shares, shares, -1, torch.float32).to(q.dtype)  # noqa: SLF001
        to_query = torch.bmm(to_scores, k).mul_(ctx.scale)
        to_key = torch.bmm(to_scores.transpose(1, 2), q)
        query, key, value = (each.view(*ctx.shape, *each.shape[1:]) for each in (to_query, to_key, to_value))
        return query, key, value, None, None, None
