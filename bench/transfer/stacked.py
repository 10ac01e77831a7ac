"""BERT with many LoRAs at once: runs that differ only in their start share the batch, the frozen layers and the dropout masks.

The arithmetic of peft's LoRA on transformers' BertModel under bfloat16 autocast, in fewer and larger operations: residuals and layer
norms in float32, products in bfloat16 (in float32 where autocast would be no faster), masks drawn in the order in which those modules draw them, so that a run has the masks
that it would have alone. ``tests/bench/test_stacked.py`` holds it to peft and transformers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hubrank.target.base import BaseModel, load_base
from hubrank.target.frameworks import bfloat16_pays

SITES = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "o",
    "intermediate.dense": "i",
    "output.dense": "d",
}
_KEY = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.lora_([AB])\.(?:default\.)?weight$")
Site = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Stack:
    """Adapters side by side on one base: at each site A [adapters, rank, d_in] and B [adapters, d_out, rank], in float32.

    Smaller ranks are padded with zeros, which stay zero: a padded row of A meets a zero column of B, and the other way round.
    """

    bert: StackedBert
    count: int
    down: dict[Site, Any]
    up: dict[Site, Any]
    scale: Any
    names: dict[str, tuple[Site, str]]

    def parameters(self) -> list[Any]:
        return [*self.down.values(), *self.up.values()]

    def hidden(self, ids: Any, sizes: Any, kinds: Any, *, training: bool) -> Any:
        """Last hidden states [adapters, rows, width, hidden] in float32, of ids [rows, width]."""
        return self.bert(self, ids, sizes, kinds, training=training)

    def tensors(self) -> list[dict[str, Any]]:
        """Each adapter's tensors by peft's names, padding included."""
        sides = {"A": self.down, "B": self.up}
        return [
            {name: sides[side][site].detach()[i].cpu().contiguous() for name, (site, side) in self.names.items()}
            for i in range(self.count)
        ]


def stack(torch: Any, bert: StackedBert, adapters: Sequence[dict[str, Any]], scales: Sequence[float], device: str) -> Stack:
    """Lay adapters of the same sites side by side.

    Args:
        adapters: tensors by peft's names, with or without the adapter's name in them.
        scales: alpha / rank of each.

    Raises:
        ValueError: a tensor is of no site of BERT, or the adapters differ in their sites.
    """
    sorted_out = [_by_site(adapter) for adapter in adapters]
    sites = sorted_out[0].keys()
    if any(found.keys() != sites for found in sorted_out):
        raise ValueError("adapters of one stack have the same sites")
    down, up = {}, {}
    for site in sites:
        rank = max(found[site]["A"].shape[0] for found in sorted_out)
        rows = [_padded(torch, found[site]["A"], rank, 0) for found in sorted_out]
        columns = [_padded(torch, found[site]["B"], rank, 1) for found in sorted_out]
        down[site] = torch.stack(rows).to(device).requires_grad_()
        up[site] = torch.stack(columns).to(device).requires_grad_()
    names = {name: _place(name) for name in adapters[0]}
    return Stack(bert, len(adapters), down, up, torch.tensor(list(scales), device=device)[:, None, None], names)


def _place(name: str) -> tuple[Site, str]:
    match = _KEY.search(name)
    if match is None or match[2] not in SITES:
        raise ValueError(f"{name} is at no site of BERT")
    return (int(match[1]), SITES[match[2]]), match[3]


def _by_site(adapter: dict[str, Any]) -> dict[Site, dict[str, Any]]:
    found: dict[Site, dict[str, Any]] = {}
    for name, tensor in adapter.items():
        site, side = _place(name)
        found.setdefault(site, {})[side] = tensor.detach().float()
    return found


def _padded(torch: Any, tensor: Any, rank: int, dim: int) -> Any:
    missing = rank - tensor.shape[dim]
    return torch.nn.functional.pad(tensor, (0, 0, 0, missing) if dim == 0 else (0, missing)) if missing else tensor


class StackedBert:
    """A frozen BERT that carries a :class:`Stack`."""

    def __init__(self, base: BaseModel, device: str) -> None:
        import torch

        model, _ = load_base(base)
        config = model.config
        if config.model_type != "bert" or config.hidden_act != "gelu":
            raise ValueError(f"{base.name}: only BERT with gelu is built here")
        model.requires_grad_(requires_grad=False).to(device).eval()
        self._torch, self._device = torch, device
        self._low = torch.bfloat16 if bfloat16_pays(device) else torch.float32
        self._embeddings = model.embeddings
        self._heads, self.hidden = config.num_attention_heads, config.hidden_size
        self._drop, self._drop_attention = config.hidden_dropout_prob, config.attention_probs_dropout_prob
        self._layers = [_Layer.of(torch, layer, self._low) for layer in model.encoder.layer]

    def start(self, adapters: Sequence[dict[str, Any]], scales: Sequence[float]) -> Stack:
        """Adapters on this base, see :func:`stack`."""
        return stack(self._torch, self, adapters, scales, self._device)

    def __call__(self, lora: Stack, ids: Any, sizes: Any, kinds: Any = None, *, training: bool) -> Any:
        """Last hidden states [adapters, rows, width, hidden] in float32, of ids [rows, width]."""
        torch, drop = self._torch, self._drop if training else 0.0
        keep = torch.arange(ids.shape[1], device=ids.device)[None, :] < sizes[:, None]
        bias = torch.zeros(keep.shape, device=ids.device, dtype=self._low).masked_fill_(~keep, float("-inf"))
        with torch.no_grad():
            embedded = self._embedded(ids, kinds)
        hidden = torch.nn.functional.dropout(embedded, drop, training).expand(lora.count, *embedded.shape)
        for number, layer in enumerate(self._layers):
            hidden = self._layer(layer, number, lora, hidden, bias[:, None, None, :], training=training)
        return hidden

    def _embedded(self, ids: Any, kinds: Any) -> Any:
        """[rows, width, hidden], before dropout."""
        parts = self._embeddings
        kinds = self._torch.zeros_like(ids) if kinds is None else kinds
        places = self._torch.arange(ids.shape[1], device=ids.device)[None, :]
        return parts.LayerNorm(
            parts.word_embeddings(ids) + parts.token_type_embeddings(kinds) + parts.position_embeddings(places)
        )

    def _layer(self, layer: _Layer, number: int, lora: Stack, hidden: Any, bias: Any, *, training: bool) -> Any:
        torch, functional = self._torch, self._torch.nn.functional
        low = hidden.to(self._low)
        parts = torch.split(self._linear(layer.qkv, low), self.hidden, dim=-1)
        query, key, value = (
            self._heads_first(self._add(lora, (number, site), low, part)) for site, part in zip("qkv", parts, strict=True)
        )
        context = self._attend(query, key, value, bias, training=training)
        context = context.transpose(2, 3).reshape(low.shape)
        out = self._add(lora, (number, "o"), context, self._linear(layer.out, context))
        hidden = layer.norms[0](hidden + self._dropped(out, training=training))
        low = hidden.to(self._low)
        wide = functional.gelu(self._add(lora, (number, "i"), low, self._linear(layer.wide, low)))
        out = self._add(lora, (number, "d"), wide, self._linear(layer.narrow, wide))
        return layer.norms[1](hidden + self._dropped(out, training=training))

    def _linear(self, weights: tuple[Any, Any], x: Any) -> Any:
        return self._torch.nn.functional.linear(x, *weights)

    def _add(self, lora: Stack, site: Site, x: Any, y: Any) -> Any:
        """y + scale * B A x, a product a stack."""
        if site not in lora.down:
            return y
        torch = self._torch
        flat = x.reshape(lora.count, -1, x.shape[-1])
        down = lora.down[site].to(self._low).transpose(1, 2)
        up = (lora.up[site] * lora.scale).to(self._low).transpose(1, 2)
        return torch.baddbmm(y.reshape(lora.count, -1, y.shape[-1]), torch.bmm(flat, down), up).view(y.shape)

    def _heads_first(self, x: Any) -> Any:
        """[adapters, rows, width, hidden] as [adapters, rows, heads, width, hidden / heads]."""
        return x.unflatten(-1, (self._heads, -1)).transpose(2, 3)

    def _attend(self, query: Any, key: Any, value: Any, bias: Any, *, training: bool) -> Any:
        torch = self._torch
        if not (training and self._drop_attention):
            flat = (part.flatten(0, 1) for part in (query, key, value))
            rows = query.shape[0] * query.shape[1]
            every = bias.expand(query.shape[0], *bias.shape).reshape(rows, 1, 1, -1)
            found = torch.nn.functional.scaled_dot_product_attention(*flat, attn_mask=every.expand(-1, 1, query.shape[3], -1))
            return found.view(query.shape)
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2)) + bias
        weights = torch.softmax(scores, dim=-1) * self._mask(scores, self._drop_attention)
        return torch.matmul(weights, value)

    def _dropped(self, x: Any, *, training: bool) -> Any:
        return x * self._mask(x, self._drop) if training and self._drop else x

    def _mask(self, x: Any, part: float) -> Any:
        """One mask for all adapters, [rows, ...] with 1 / (1 - part) where something stays."""
        mask = self._torch.empty(x.shape[1:], dtype=x.dtype, device=x.device)
        return mask.bernoulli_(1 - part).div_(1 - part)


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights and biases in the precision of the products, layer norms in float32."""

    qkv: tuple[Any, Any]
    out: tuple[Any, Any]
    wide: tuple[Any, Any]
    narrow: tuple[Any, Any]
    norms: tuple[Any, Any]

    @classmethod
    def of(cls, torch: Any, layer: Any, kind: Any) -> _Layer:
        own = layer.attention.self
        three = (own.query, own.key, own.value)
        qkv = tuple(torch.cat([getattr(part, name) for part in three]).to(kind) for name in ("weight", "bias"))
        dense = (layer.attention.output.dense, layer.intermediate.dense, layer.output.dense)
        others = [(part.weight.to(kind), part.bias.to(kind)) for part in dense]
        return cls(qkv, *others, (layer.attention.output.LayerNorm, layer.output.LayerNorm))
