"""A FourierFT taken apart in a real Fourier basis: what the dense inverse transform gives, whatever the shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.fourier import Frequencies
from hubrank.checkpoints.peft_random import read_fourierft
from hubrank.errors import AdapterError
from tests.checkpoints.test_leading import QUERY, assert_same_signature


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 81), st.integers(0, 99))
def test_all_directions_make_the_inverse_transform(rows, columns, n, seed):
    rng = np.random.default_rng(seed)
    places = rng.permutation(rows * columns)[:n]
    spectrum = rng.standard_normal(len(places)).astype(np.float32)
    grid = np.zeros(rows * columns)
    grid[places] = spectrum
    expected = np.fft.ifft2(grid.reshape(rows, columns)).real
    part = Frequencies(places, (rows, columns)).leading(spectrum, 1000)
    np.testing.assert_allclose((part.u * part.values) @ part.v.T, expected, atol=1e-6)
    values = np.linalg.svd(expected, compute_uv=False)
    found = np.concatenate([part.values, np.zeros(max(0, len(values) - len(part.values)))])[: len(values)]
    np.testing.assert_allclose(found, values, atol=1e-6)
    kept = part.values > 1e-3 * part.values[0]
    np.testing.assert_allclose((part.u.T @ part.u)[kept][:, kept], np.eye(kept.sum()), atol=1e-4)


@pytest.mark.parametrize("n", [1, 12, 60, 400])  # from single entries to one block
def test_a_large_fourierft_has_the_signature_of_its_dense_matrices(n, monkeypatch):
    rng = np.random.default_rng(n)
    base = {
        f"{QUERY.format(layer).removeprefix('base_model.model.')}.weight": np.ones((30, 25), np.float32) for layer in (0, 1)
    }
    tensors = {f"{QUERY.format(layer)}.fourierft_spectrum": rng.standard_normal(n).astype(np.float32) for layer in (0, 1)}
    config = {"n_frequency": n, "scaling": -20}
    whole = read_fourierft(config, tensors, "b", base_tensors=base)
    monkeypatch.setattr("hubrank.checkpoints.peft_random.WHOLE", 0)
    part = read_fourierft(config, tensors, "b", base_tensors=base)
    assert_same_signature(whole, part)
    assert [delta.spectrum is None for delta in (*whole.deltas, *part.deltas)] == [True, True, False, False]


def test_the_work_is_bounded(monkeypatch):
    monkeypatch.setattr("hubrank.checkpoints.peft_random.WHOLE", 0)
    monkeypatch.setattr("hubrank.checkpoints.leading.MAX_WORK", 1000)
    base = {f"{QUERY.format(0).removeprefix('base_model.model.')}.weight": np.ones((30, 25), np.float32)}
    tensors = {f"{QUERY.format(0)}.fourierft_spectrum": np.ones(200, np.float32)}
    with pytest.raises(AdapterError, match="would take too long"):
        read_fourierft({"n_frequency": 200}, tensors, "b", base_tensors=base)
