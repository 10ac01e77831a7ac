"""Arrays without evaluating a header and without unpickling."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubrank.checkpoints.numpy_file import NumpyFile
from hubrank.errors import AdapterError
from tests.checkpoints.weights import opened, read_all
from tests.real_data import DATA


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz(*, compressed=False, **arrays) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


def with_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def refusal(data: bytes) -> str:
    with pytest.raises(AdapterError) as caught:
        read_all(NumpyFile, data)
    return caught.value.reason


@given(
    seed=st.integers(0, 99),
    shape=st.lists(st.integers(0, 4), max_size=4),
    dtype=st.sampled_from(["<f2", "<f4", "<f8", ">f4", ">f8"]),
    order=st.sampled_from("CF"),
)
def test_any_plain_array_reads_as_numpy_reads_it(seed, shape, dtype, order):
    array = np.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype), order=order)
    expected = array.astype(np.float32)
    for read in (
        read_all(NumpyFile, npy(array))[""],
        read_all(NumpyFile, npz(a=array, n=np.arange(3)))["a"],
        read_all(NumpyFile, npz(compressed=True, a=array))["a"],
    ):
        assert read.dtype == np.float32
        assert np.array_equal(read, expected)
        assert read.shape == expected.shape


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the shared data")
def test_real_files_read_as_numpy_reads_them():
    files = [*DATA.glob("adapters/*/*.npy"), *DATA.glob("prompt_transfer/*.npz")]
    assert len(files) >= 5
    for path in files:
        read, expected = read_all(NumpyFile, path.read_bytes()), np.load(path)
        expected = dict(expected) if path.suffix == ".npz" else {"": expected}
        assert set(read) == set(expected)
        assert all(np.array_equal(read[name], expected[name]) for name in read)


def test_integers_and_text_are_not_listed():
    assert not opened(NumpyFile, npy(np.arange(4))).tensors
    assert not opened(NumpyFile, npy(np.array(["a"]))).tensors


def test_objects_are_never_loaded():
    assert refusal(npy(np.array([{}], dtype=object))) == "unsafe file"
    assert refusal(npz(a=np.array([{}], dtype=object))) == "unsafe file"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }", "damaged file"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }", "damaged file"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "unsupported format"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1 2,), }", "damaged file"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 40 + "), }", "damaged file"),
        ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "unsupported format"),
        ("__import__('os').system('true')", "unsupported format"),
        ("(" * 3000, "unsupported format"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }" + " " * 5000, "unsupported format"),
        ("", "unsupported format"),
    ],
)
def test_headers_are_matched_not_evaluated(header, reason):
    assert refusal(with_header(header, bytes(8))) == reason


def test_cut_and_foreign_files_are_refused():
    data = npy(np.ones((3, 4), np.float32))
    for end in range(len(data)):
        assert refusal(data[:end]) in ("damaged file", "unsupported format")
    assert refusal(data + b"x") == "damaged file"
    with pytest.raises(AdapterError, match="file too large"):
        NumpyFile(lambda start, stop: pytest.fail("nothing is read"), 1 << 40)


def test_a_bomb_is_refused_before_it_is_inflated():
    data = npz(compressed=True, a=np.zeros((30_000, 1000), np.float32))
    assert len(data) < 200_000
    assert refusal(data) == "file too large"
    many = npz(compressed=True, **{f"a{i}": np.zeros((2_000_000,), np.float16) for i in range(20)})
    assert refusal(many) == "file too large"
    assert len(opened(NumpyFile, many).read(["a0"])) == 1


def test_a_member_that_inflates_to_another_size_is_refused():
    data = bytearray(npz(compressed=True, a=np.arange(1000, dtype=np.float32)))
    at = data.rindex(b"PK\x01\x02") + 24  # the size in the central directory
    data[at : at + 4] = (4128 + 4).to_bytes(4, "little")
    assert refusal(bytes(data)) == "damaged file"


def test_a_flipped_bit_in_a_member_is_noticed():
    data = bytearray(npz(a=np.arange(1000, dtype=np.float32)))
    data[2000] ^= 1
    assert refusal(bytes(data)) == "damaged file"


def test_overlapping_members_are_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.npy", npy(np.ones(4, np.float32)))
        file.writestr("b.npy", npy(np.ones(4, np.float32)))
    data = bytearray(buffer.getvalue())
    at = data.rindex(b"PK\x01\x02") + 42  # where the last member's local header lies
    data[at : at + 4] = bytes(4)
    assert refusal(bytes(data)) == "unsafe file"
