"""Deltas to canonical factors: against the SVD of the dense update, at every scale that float32 has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.architectures import site_of
from hubrank.errors import AdapterError
from hubrank.signatures.canonical import MAX_RANK, canonical_factors
from hubrank.types import Delta
from tests.builders import MODULES, delta, dense, random_factors, sign

SITE = site_of(MODULES[0])


@given(
    seed=st.integers(0, 10**6),
    rank=st.integers(1, 6),
    d_out=st.integers(1, 20),
    d_in=st.integers(1, 20),
)
def test_factors_are_the_svd_of_the_dense_update(seed, rank, d_out, d_in):
    up, down = random_factors(seed, rank=rank, d_out=d_out, d_in=d_in)
    (f,) = canonical_factors([delta(SITE, up, down)])
    update = up.astype(np.float64) @ down.astype(np.float64)
    size = np.linalg.norm(update)
    np.testing.assert_allclose(dense(f), update, atol=2e-3 * size)  # what is under the tolerance is dropped
    values = np.linalg.svd(update, compute_uv=False)
    np.testing.assert_allclose(f.spectrum, values[: len(f.spectrum)], rtol=1e-4, atol=1e-5 * size)
    k = len(f.s)
    assert f.u.shape == (d_out, k)
    assert f.v.shape == (d_in, k)
    np.testing.assert_allclose(f.u.T @ f.u, np.eye(k), atol=1e-5)
    np.testing.assert_allclose(f.v.T @ f.v, np.eye(k), atol=1e-5)
    assert (np.diff(f.s) <= 0).all()
    assert {f.u.dtype, f.s.dtype, f.v.dtype, f.spectrum.dtype} == {np.dtype(np.float32)}


def test_known_singular_values():
    left, right = np.eye(8)[:, :3], np.eye(6)[:3]
    (f,) = canonical_factors([delta(SITE, left * [5.0, 3.0, 0.001], right)])
    assert f.s.tolist() == pytest.approx([5.0, 3.0])  # 0.001 is under a thousandth of 5
    np.testing.assert_allclose(dense(f), np.diag([5.0, 3.0, 0, 0, 0, 0])[:6].tolist() + [[0] * 6] * 2, atol=1e-6)
    (f,) = canonical_factors([delta(SITE, left * [5.0, 3.0, 0.006], right)])
    assert f.s.tolist() == pytest.approx([5.0, 3.0, 0.006], rel=1e-4)


def test_padded_ranks_are_dropped():
    up, down = random_factors(0, rank=2)
    padded = delta(SITE, np.pad(up, ((0, 0), (0, 6))), np.pad(down, ((0, 6), (0, 0))))
    (f,) = canonical_factors([padded])
    assert len(f.s) == len(f.spectrum) == 2


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-19, 1e19, 1e37])
def test_directions_survive_any_scale_of_the_factors(scale):
    up, down = random_factors(3)
    (plain,) = canonical_factors([delta(SITE, up, down)])
    for factors in ((up * scale, down), (up, down * scale)):
        (f,) = canonical_factors([delta(SITE, *factors)])
        np.testing.assert_allclose(f.s / f.s[0], plain.s / plain.s[0], rtol=1e-5)
        np.testing.assert_allclose(np.abs(f.u.T @ plain.u), np.eye(2), atol=1e-5)
        np.testing.assert_allclose(f.s[0] / plain.s[0], scale, rtol=1e-5)
    (f,) = canonical_factors([delta(SITE, up * scale, down / scale)])
    np.testing.assert_allclose(dense(f), dense(plain), atol=1e-4)


@pytest.mark.parametrize(
    ("up", "down"), [(3e38, 3e38), (1e30, 1e30), (np.inf, 1.0), (1.0, np.inf), (np.nan, 1.0), (1.0, np.nan), (np.inf, 0.0)]
)
def test_an_update_that_overflows_is_not_finite(up, down):
    with pytest.raises(AdapterError) as caught:
        canonical_factors([delta(SITE, np.full((4, 2), up), np.full((2, 4), down))])
    assert caught.value.reason == "not finite"


def test_a_zero_site_is_left_out_and_an_all_zero_adapter_refused():
    sites = [site_of(name) for name in MODULES]
    good = delta(sites[0], *random_factors(0))
    zeros = delta(sites[1], np.zeros((16, 2)), random_factors(1)[1])
    assert sign([zeros, good]).sites == (sites[0],)
    with pytest.raises(AdapterError) as caught:
        sign([zeros])
    assert caught.value.reason == "all zero"


@given(
    seed=st.integers(0, 10**6),
    d_out=st.integers(2, 40),
    d_in=st.integers(2, 40),
    spread=st.floats(0, 2.9),
    size=st.floats(-25, 25),
)
def test_a_dense_update_has_the_factors_of_its_svd(seed, d_out, d_in, spread, size):
    """As the families come that have no small factors: the update beside an identity; its values down to the tolerance."""
    rng = np.random.default_rng(seed)
    d = min(d_out, d_in)
    left, right = (np.linalg.qr(rng.standard_normal((n, d)))[0] for n in (d_out, d_in))
    update = 10.0**size * ((left * np.logspace(0, -spread, d)) @ right.T)
    eye = np.eye(d)
    up, down = (update, eye) if d_in <= d_out else (eye, update)
    (f,) = canonical_factors([Delta(SITE, down=down, up=up)])
    assert len(f.s) == d
    np.testing.assert_allclose(f.s, 10.0**size * np.logspace(0, -spread, d), rtol=1e-5)
    for mine in (f.u, f.v):
        np.testing.assert_allclose(mine.T @ mine, np.eye(d), atol=1e-5)
    np.testing.assert_allclose(dense(f) / 10.0**size, update / 10.0**size, atol=1e-6)


def test_a_rank_over_the_cap_is_truncated_but_its_spectrum_is_whole():
    up, down = random_factors(0, rank=MAX_RANK + 20, d_out=100, d_in=120)
    (f,) = canonical_factors([delta(SITE, up, down)])
    assert f.u.shape == (100, MAX_RANK)
    assert f.v.shape == (120, MAX_RANK)
    assert len(f.spectrum) == MAX_RANK + 20
    assert np.linalg.norm(f.spectrum) == pytest.approx(np.linalg.norm(up.astype(np.float64) @ down), rel=1e-5)
    assert np.array_equal(f.s, f.spectrum[:MAX_RANK])


def test_a_batch_of_shapes_is_what_each_is_alone_and_sites_come_sorted():
    deltas = [
        delta(site_of(f"encoder.layer.{i}.{name}"), *random_factors(10 * i + rank, rank=rank, d_out=d_out, d_in=8))
        for i, (name, rank, d_out) in enumerate([("b", 2, 8), ("a", 3, 8), ("c", 2, 12), ("b", 2, 8), ("a", 2, 8)])
    ]
    signature = sign(deltas[::-1])
    assert list(signature.sites) == sorted(d.site for d in deltas)
    alone = {f.site: f for d in deltas for f in canonical_factors([d])}
    for f in signature.factors:
        np.testing.assert_allclose(dense(f), dense(alone[f.site]), atol=1e-5)


@given(
    seed=st.integers(0, 10**6),
    rank=st.integers(1, 8),
    spread=st.floats(0, 2.8),
    written=st.floats(0, 6),
    together=st.booleans(),
)
def test_however_badly_an_update_is_written_its_factors_are_those_of_the_svd(seed, rank, spread, written, together):
    """Singular values down to the tolerance; a change of basis inside that is far worse conditioned than the update."""
    rng = np.random.default_rng(seed)
    left, right, outer, inner = (np.linalg.qr(rng.standard_normal((d, rank)))[0] for d in (60, 40, rank, rank))
    values = np.logspace(0, -spread, rank)
    change = (outer * np.logspace(0, -written, rank)) @ inner.T
    # In float64, so that what is tested is not how float32 rounds the factors.
    up, down = (left * values) @ change, np.linalg.inv(change) @ right.T
    bad = Delta(SITE, down=down, up=up)
    easy = Delta(site_of(MODULES[1]), *random_factors(1, rank=rank, d_out=60, d_in=40)[::-1])
    f = next(f for f in canonical_factors([bad, easy] if together else [bad]) if f.site == SITE)
    assert len(f.s) == rank
    np.testing.assert_allclose(f.s, values, rtol=1e-4)
    for mine, true in ((f.u, left), (f.v, right)):
        np.testing.assert_allclose(mine.T @ mine, np.eye(rank), atol=1e-5)
        np.testing.assert_allclose(mine @ mine.T, true @ true.T, atol=1e-4)


@given(seed=st.integers(0, 10**6), rank=st.integers(1, 8), spread=st.floats(0, 2.8), written=st.floats(0, 4))
def test_directions_made_in_float32_are_as_exact_as_those_of_float64(seed, rank, spread, written):
    """The factors as files hold them; the worse they cancel each other, the more of them have to be added up in float64."""
    rng = np.random.default_rng(seed)
    left, right, outer, inner = (np.linalg.qr(rng.standard_normal((d, rank)))[0] for d in (60, 40, rank, rank))
    change = (outer * np.logspace(0, -written, rank)) @ inner.T
    up, down = (left * np.logspace(0, -spread, rank)) @ change, np.linalg.inv(change) @ right.T
    up, down = up.astype(np.float32), down.astype(np.float32)
    (f,) = canonical_factors([delta(SITE, up, down)])
    update = up.astype(np.float64) @ down.astype(np.float64)
    k = len(f.s)
    u, values, vt = np.linalg.svd(update)
    np.testing.assert_allclose(f.s, values[:k], rtol=1e-4)
    np.testing.assert_allclose(f.u.T @ f.u, np.eye(k), atol=1e-5)
    np.testing.assert_allclose(f.v.T @ f.v, np.eye(k), atol=1e-5)
    # What is kept spans what the dense update's own first directions span, unless the next one is as large.
    if k == rank:
        np.testing.assert_allclose(f.u @ f.u.T, u[:, :k] @ u[:, :k].T, atol=1e-4)
        np.testing.assert_allclose(f.v @ f.v.T, vt[:k].T @ vt[:k], atol=1e-4)


@given(seed=st.integers(0, 10**6), sizes=st.lists(st.floats(-18, 18), min_size=4, max_size=4))
def test_sizes_that_cancel_between_the_factors_change_nothing(seed, sizes):
    up, down = random_factors(seed, rank=4)
    scale = np.power(10.0, sizes).astype(np.float32)
    (plain,) = canonical_factors([delta(SITE, up, down)])
    (f,) = canonical_factors([delta(SITE, up * scale, down / scale[:, None])])
    np.testing.assert_allclose(f.s, plain.s, rtol=1e-4)
    np.testing.assert_allclose(dense(f), dense(plain), atol=1e-4 * plain.s[0])


@pytest.mark.parametrize("where", ["up", "down", "both", "apart"])
def test_columns_of_zeros_and_copies_of_columns_add_nothing(where):
    up, down = random_factors(0, rank=2)
    (plain,) = canonical_factors([delta(SITE, up, down)])
    more_up, more_down = random_factors(1, rank=2)
    if where in ("up", "both"):
        more_up = more_up * 0
    if where in ("down", "both"):
        more_down = more_down * 0
    if where == "apart":
        more_up, more_down = more_up * [[1, 0]], more_down * [[0], [1]]
    (f,) = canonical_factors([delta(SITE, np.hstack([up, more_up]), np.vstack([down, more_down]))])
    np.testing.assert_allclose(f.spectrum, plain.spectrum, rtol=1e-5)
    (twice,) = canonical_factors([delta(SITE, np.hstack([up, up]) / 2, np.vstack([down, down]))])
    for other in (f, twice):
        assert len(other.s) == 2
        np.testing.assert_allclose(dense(other), dense(plain), atol=1e-5 * plain.s[0])


def test_many_sites_are_taken_in_portions(monkeypatch):
    deltas = [delta(site_of(f"layers.{i}.q"), *random_factors(i)) for i in range(7)]
    whole = {f.site: f for f in canonical_factors(deltas)}
    for name, value in (("_TOGETHER", 250), ("_MAX_SITES", 3), ("_MAX_NUMBERS", 130)):
        monkeypatch.setattr(f"hubrank.signatures.canonical.{name}", value)
        for f in canonical_factors(deltas):
            np.testing.assert_allclose(dense(f), dense(whole[f.site]), atol=1e-5)


def test_a_signature_beyond_its_budget_keeps_fewer_directions_at_every_site(monkeypatch):
    deltas = [
        delta(site_of(name), *random_factors(i, rank=rank))
        for i, (name, rank) in enumerate(zip(MODULES, (1, 2, 4, 4), strict=True))
    ]
    whole = sign(deltas)
    size = sum((16 + 16 + 12) * len(f.s) for f in whole.factors)
    monkeypatch.setattr("hubrank.signatures.canonical.MAX_BYTES", size)
    assert [len(f.s) for f in sign(deltas).factors] == [1, 2, 4, 4]
    monkeypatch.setattr("hubrank.signatures.canonical.MAX_BYTES", size - 1)
    some = sign(deltas)
    assert [len(f.s) for f in some.factors] == [1, 2, 3, 3]
    for mine, full in zip(some.factors, whole.factors, strict=True):
        k = len(mine.s)
        np.testing.assert_allclose(mine.u, full.u[:, :k], atol=1e-6)
        np.testing.assert_allclose(mine.v, full.v[:, :k], atol=1e-6)
        assert np.array_equal(mine.spectrum, full.spectrum)
    monkeypatch.setattr("hubrank.signatures.canonical.MAX_BYTES", 1)
    assert [len(f.s) for f in sign(deltas).factors] == [1, 1, 1, 1]
