"""A signature as bytes: a safetensors file of int8 factors with one scale a column.

Layout (format 1), columns of all sites side by side, each site ``(d + 4) * k`` bytes a side::

    u, v            int8     U and V column by column, sites in order, flat
    u_scale, v_scale float32 one a column: the column is int8 * scale
    s               float32  kept singular values, flat
    spectrum        float32  all singular values, flat
    __metadata__    hubrank = JSON: {"format": 1, "sites": [[stack, layer, module, reads, writes, d_out, d_in, k, r], ...]}

Quantising a unit column to int8 moves a cosine by less than 0.01.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.errors import StoreDamagedError
from hubrank.types import Factors, Signature, Site

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hubrank.types import FloatArray, Int8Array

__all__ = ["SIGNATURE_FORMAT", "decode_signature", "encode_signature", "quantise"]

SIGNATURE_FORMAT = 1

_TOGETHER = 1 << 18
"""Numbers of several small sites that are quantised at once."""


def quantise(columns: FloatArray) -> tuple[Int8Array, FloatArray]:
    """Columns of [d, k] to int8 [d, k] and scales [k]."""
    rows = np.empty(columns.T.shape, np.int8)
    return rows.T, _quantise(columns.T, rows)


def _quantise(rows: FloatArray, out: Int8Array) -> FloatArray:
    """Rows of [k, d] to int8, into ``out`` [k, d]; returns their scales [k]."""
    scaled = np.abs(rows)
    scales: FloatArray = (scaled.max(axis=1) / 127).astype(np.float32)
    scales[scales == 0] = 1.0
    np.divide(rows, scales[:, None], out=scaled)
    np.rint(scaled, out=scaled)
    np.copyto(out, scaled, casting="unsafe")
    return scales


def _side(columns: Sequence[FloatArray]) -> tuple[Int8Array, FloatArray]:
    """The columns of all sites, each [k, d], as flat int8 and their scales; neighbours of one length in one batch."""
    codes, scales, at = np.empty(sum(rows.size for rows in columns), np.int8), [], 0
    for batch in _batches(columns):
        rows = np.concatenate(batch) if len(batch) > 1 else batch[0]
        scales.append(_quantise(rows, codes[at : at + rows.size].reshape(rows.shape)))
        at += rows.size
    return codes, np.concatenate(scales)


def _batches(columns: Sequence[FloatArray]) -> Iterator[list[FloatArray]]:
    batch: list[FloatArray] = []
    numbers = 0
    for rows in columns:
        if batch and (rows.shape[1] != batch[0].shape[1] or numbers + rows.size > _TOGETHER):
            yield batch
            batch, numbers = [], 0
        batch.append(rows)
        numbers += rows.size
    if batch:
        yield batch


def encode_signature(signature: Signature) -> bytes:
    """The bytes that the store keeps."""
    from safetensors.numpy import save

    factors = signature.factors
    u, u_scale = _side([f.u.T for f in factors])
    v, v_scale = _side([f.v.T for f in factors])
    tensors: dict[str, NDArray[Any]] = {
        "u": u,
        "v": v,
        "u_scale": u_scale,
        "v_scale": v_scale,
        "s": np.concatenate([f.s for f in factors]),
        "spectrum": np.concatenate([f.spectrum for f in factors]),
    }
    sites = []
    for f in factors:
        shape = (f.u.shape[0], f.v.shape[0], len(f.s), len(f.spectrum))
        sites.append([f.site.stack, f.site.layer, f.site.module, f.site.reads, f.site.writes, *shape])
    return save(tensors, metadata={"hubrank": json.dumps({"format": SIGNATURE_FORMAT, "sites": sites})})


def decode_signature(data: bytes) -> Signature:
    """The inverse of :func:`encode_signature`, up to quantising.

    Raises:
        StoreDamagedError: the bytes are not a signature of this format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        length = int.from_bytes(data[:8], "little")
        header: dict[str, Any] = json.loads(data[8 : 8 + length])
        meta = json.loads(header["__metadata__"]["hubrank"])
        if meta["format"] != SIGNATURE_FORMAT:
            raise ValueError(f"format {meta['format']}")
        tensors = load(data)
        return Signature(tuple(_factors(meta["sites"], tensors)))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, SafetensorError) as error:
        raise StoreDamagedError(f"a stored signature cannot be read ({type(error).__name__}: {str(error)[:80]})") from error


def _factors(sites: list[list[Any]], tensors: dict[str, Any]) -> list[Factors]:
    out, at = [], dict.fromkeys(tensors, 0)

    def take(name: str, count: int) -> Any:
        part = tensors[name][at[name] : at[name] + count]
        if len(part) != count:
            raise ValueError(f"{name} ends early")
        at[name] += count
        return part

    for stack, layer, module, reads, writes, d_out, d_in, k, r in sites:
        columns = {
            side: take(side, d * k).reshape(k, d).T.astype(np.float32) * take(f"{side}_scale", k)
            for side, d in (("u", d_out), ("v", d_in))
        }
        site = Site(stack, layer, module, reads=reads, writes=writes)
        out.append(Factors(site, u=columns["u"], s=take("s", k), v=columns["v"], spectrum=take("spectrum", r)))
    return out
