"""Signatures as bytes: what quantising costs, and what is no signature."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from hubrank.checkpoints.architectures import site_of
from hubrank.errors import StoreDamagedError
from hubrank.signatures.encoding import decode_signature, encode_signature, quantise
from hubrank.signatures.views import THREE_VIEWS, similarity
from hubrank.types import Signature
from tests.builders import delta, random_factors, random_signature, sign


@given(seed=st.integers(0, 10**6), rank=st.integers(1, 5), d_out=st.integers(1, 30), d_in=st.integers(1, 30))
def test_decoding_gives_back_all_but_half_a_step_of_each_column(seed, rank, d_out, d_in):
    signature = random_signature(seed, rank=rank, d_out=d_out, d_in=d_in)
    back = decode_signature(encode_signature(signature))
    assert back.sites == signature.sites
    assert [(s.reads, s.writes) for s in back.sites] == [(s.reads, s.writes) for s in signature.sites]
    for mine, stored in zip(signature.factors, back.factors, strict=True):
        assert np.array_equal(stored.s, mine.s)
        assert np.array_equal(stored.spectrum, mine.spectrum)
        for ours, theirs in ((mine.u, stored.u), (mine.v, stored.v)):
            assert theirs.dtype == np.float32
            assert theirs.shape == ours.shape
            assert (np.abs(ours - theirs) <= np.abs(ours).max(axis=0) / 127 * 0.501).all()


@given(seed=st.integers(0, 10**6), rank=st.integers(1, 5))
def test_a_stored_signature_is_as_similar_as_the_fresh_one(seed, rank):
    a, b = random_signature(seed, rank=rank, d_out=24), random_signature(seed + 1, rank=3, d_out=24)
    stored = decode_signature(encode_signature(a))
    for view in THREE_VIEWS:
        assert similarity(stored, b, view) == pytest.approx(similarity(a, b, view), abs=1e-2)
        assert similarity(stored, a, view) == pytest.approx(1.0, abs=1e-2)


def test_encoding_twice_loses_nothing_more():
    data = encode_signature(random_signature(0))
    assert encode_signature(decode_signature(data)) == data


@pytest.mark.parametrize("together", [1, 150, 1 << 18])
def test_sites_that_are_quantised_together_have_the_bytes_of_each_alone(together, monkeypatch):
    monkeypatch.setattr("hubrank.signatures.encoding._TOGETHER", together)
    shapes = [(2, 16, 24), (3, 16, 24), (1, 16, 8), (4, 40, 8), (2, 16, 8)]
    signature = sign(
        [delta(site_of(f"layers.{i}.q"), *random_factors(i, rank=r, d_out=o, d_in=d)) for i, (r, o, d) in enumerate(shapes)]
    )
    stored = load(encode_signature(signature))
    for side in ("u", "v"):
        alone = [quantise(getattr(factors, side)) for factors in signature.factors]
        assert np.array_equal(stored[side], np.concatenate([codes.T.ravel() for codes, _ in alone]))
        assert np.array_equal(stored[f"{side}_scale"], np.concatenate([scales for _, scales in alone]))


def test_truncated_factors_keep_their_whole_spectrum():
    signature = random_signature(0, rank=80, d_out=100, d_in=90)
    back = decode_signature(encode_signature(signature))
    assert len(back.factors[0].s) == 64
    assert np.array_equal(back.factors[0].spectrum, signature.factors[0].spectrum)


def test_the_size_is_that_of_the_layout():
    small = len(encode_signature(random_signature(0, rank=2, d_out=100, d_in=200)))
    large = len(encode_signature(random_signature(0, rank=4, d_out=100, d_in=200)))
    # Four sites, two more columns each: d + 4 bytes a side, and s and spectrum; the header may be padded differently.
    assert abs((large - small) - 4 * 2 * (104 + 204 + 8)) <= 16


def test_quantising_spares_zeros():
    columns = np.array([[0.0, 1.0], [0.0, -0.5]], np.float32)
    codes, scales = quantise(columns)
    assert codes.tolist() == [[0, 127], [0, -64]]
    assert (codes * scales)[:, 0].tolist() == [0, 0]


def changed(**meta) -> bytes:
    """A good signature with fields of its metadata changed."""
    data = encode_signature(random_signature(0))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    fields = {**json.loads(header["__metadata__"]["hubrank"]), **meta}
    return save(load(data), metadata={"hubrank": json.dumps(fields)})


def site_entry(**changes) -> list:
    entry = {"stack": "", "layer": 0, "module": "m", "reads": "m", "writes": "m", "d_out": 16, "d_in": 16, "k": 2, "r": 2}
    return list({**entry, **changes}.values())


def test_what_the_bad_signatures_were_made_from_is_fine():
    assert len(decode_signature(changed()).factors) == 4
    assert len(decode_signature(changed(sites=[site_entry()])).factors) == 1


GOOD = encode_signature(random_signature(0, sites=["encoder.layer.0.attention.self.query"], d_out=3, d_in=3))
BAD = {
    "nothing": b"",
    "text": b"not a signature, but long enough to be one",
    "header alone": GOOD[:200],
    "cut": GOOD[:-1],
    "longer": GOOD + b"\0",
    "deep nesting": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "another format": changed(format=2),
    "no format": save(load(GOOD), metadata={"hubrank": "{}"}),
    "no metadata": save(load(GOOD)),
    "metadata that is no JSON": save(load(GOOD), metadata={"hubrank": "x"}),
    "metadata that is a list": save(load(GOOD), metadata={"hubrank": "[]"}),
    "missing tensor": save(
        {k: v for k, v in load(GOOD).items() if k != "v_scale"}, metadata={"hubrank": '{"format": 1, "sites": []}'}
    )[:-9],
    "sites of another type": changed(sites=5),
    "site of another length": changed(sites=[[1, 2]]),
    "too many sites": changed(sites=[site_entry()] * 100),
    "negative size": changed(sites=[site_entry(d_out=-1)]),
    "text size": changed(sites=[site_entry(k="2")]),
    "huge size": changed(sites=[site_entry(d_in=2**40)]),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_is_no_signature_is_damage(data):
    with pytest.raises(StoreDamagedError, match="signature cannot be read"):
        decode_signature(data)


@given(flips=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_mutated_signature_is_read_or_damaged_never_anything_else(flips):
    raw = bytearray(GOOD)
    for position, value in flips:
        raw[position] = value
    with contextlib.suppress(StoreDamagedError):
        assert isinstance(decode_signature(bytes(raw)), Signature)
