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
from typing import TYPE_CHECKING, Any

import numpy as np

from hubrank.errors import StoreDamagedError
from hubrank.types import Factors, Signature, Site

if TYPE_CHECKING:
    from hubrank.types import FloatArray, Int8Array

__all__ = ["SIGNATURE_FORMAT", "decode_signature", "encode_signature", "quantise"]

SIGNATURE_FORMAT = 1


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


def encode_signature(signature: Signature) -> bytes:
    """The bytes that the store keeps."""
    from safetensors.numpy import save

    factors = signature.factors
    sites, scales = [], {"u_scale": [], "v_scale": []}  # type: ignore[var-annotated]
    codes = {
        "u": np.empty(sum(f.u.size for f in factors), np.int8),
        "v": np.empty(sum(f.v.size for f in factors), np.int8),
    }
    at = {"u": 0, "v": 0}
    for f in factors:
        site = f.site
        shape = [f.u.shape[0], f.v.shape[0], len(f.s), len(f.spectrum)]
        sites.append([site.stack, site.layer, site.module, site.reads, site.writes, *shape])
        for side, columns in (("u", f.u), ("v", f.v)):
            start, at[side] = at[side], at[side] + columns.size
            out = codes[side][start : at[side]].reshape(columns.T.shape)
            scales[f"{side}_scale"].append(_quantise(columns.T, out))
    tensors = {
        **codes,
        **{name: np.concatenate(arrays) for name, arrays in scales.items()},
        "s": np.concatenate([f.s for f in factors]),
        "spectrum": np.concatenate([f.spectrum for f in factors]),
    }
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
