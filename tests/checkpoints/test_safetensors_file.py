"""Reading safetensors by ranges: hostile headers, every float format, and no byte more than is wanted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import save

from hubrank.checkpoints.safetensors_file import MAX_HEADER_BYTES, SafetensorsFile
from hubrank.errors import AdapterError


def assemble(header: object, data: bytes) -> bytes:
    """A file with this header: JSON of an object, or raw bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def opened(raw: bytes, reads: list[tuple[int, int]] | None = None) -> SafetensorsFile:
    def read_range(start, stop):
        if reads is not None:
            reads.append((start, stop))
        assert 0 <= start <= stop <= len(raw), "asked for bytes that the file does not have"
        return raw[start:stop]

    return SafetensorsFile(read_range, len(raw))


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def one(**changes: object) -> bytes:
    """A file of one tensor of 8 bytes; without changes it is a good one."""
    return assemble({"w": entry(**changes)}, bytes(8))


def two(first: tuple[int, int], second: tuple[int, int], data: int) -> bytes:
    return assemble({"a": entry(offsets=first), "b": entry(offsets=second)}, bytes(data))


def decoded(dtype: str, data: bytes, count: int) -> np.ndarray:
    return opened(assemble({"w": entry(dtype, [count], [0, len(data)])}, data)).read(["w"])["w"]


def assert_same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal to the last bit, the sign of zero included; any NaN is like any other."""
    assert ours.dtype == theirs.dtype == np.float32
    nan = np.isnan(theirs)
    assert np.array_equal(np.isnan(ours), nan)
    assert np.array_equal(ours[~nan].view(np.uint32), theirs[~nan].view(np.uint32))


HOSTILE = {
    "overlap": two((0, 8), (4, 12), 12),
    "same bytes twice": two((0, 8), (0, 8), 8),
    "hole between": two((0, 8), (12, 20), 20),
    "hole at the start": one(offsets=[4, 12])[:-8] + bytes(12),
    "trailing bytes": one() + b"\0",
    "no tensor but data": assemble({}, bytes(4)),
    "truncated data": one()[:-1],
    "truncated header": one()[:20],
    "duplicate names": assemble(b'{"w":%b,"w":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
    "duplicate fields": assemble(b'{"w":{"dtype":"F16","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
    "two negative sizes": one(shape=[-1, -2]),
    "negative size": one(shape=[-2]),
    "bool size": one(shape=[True, 2]),
    "float size": one(shape=[2.0]),
    "text size": one(shape=["2"]),
    "shape of another type": one(shape=2),
    "sizes that overflow 64 bits": one(shape=[2**32, 2**32, 2]),
    "huge empty tensor": assemble({"w": entry(shape=[0, 2**62], offsets=[0, 0])}, b""),
    "nine dimensions": one(shape=[1] * 8 + [2]),
    "shape larger than its bytes": one(shape=[3]),
    "shape smaller than its bytes": one(shape=[1]),
    "negative offset": one(offsets=[-8, 0]),
    "falling offsets": one(offsets=[8, 0]),
    "bool offsets": assemble({"w": entry("U8", [1], [False, True])}, bytes(1)),
    "float offsets": one(offsets=[0.0, 8.0]),
    "three offsets": one(offsets=[0, 8, 8]),
    "offsets beyond the file": one(shape=[200], offsets=[0, 800]),
    "offsets of 100 digits": one(offsets=[0, 10**100]),
    "number of 5,000 digits": assemble(b'{"w": ' + b"9" * 5000 + b"}", b""),
    "unknown dtype": one(dtype="F33"),
    "dtype of another type": one(dtype=32),
    "unhashable dtype": one(dtype=["F32"]),
    "missing field": assemble({"w": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "entry of another type": assemble({"w": [0, 8]}, bytes(8)),
    "header of another type": assemble([1, 2], b""),
    "header is null": assemble(b"null", b""),
    "not JSON": assemble(b"{not json", b""),
    "not UTF-8": assemble(b'{"\xff": 1}', b""),
    "empty header": assemble(b"", b""),
    "deep nesting": assemble(b"[" * 100_000 + b"]" * 100_000, b""),
    "deep nesting in metadata": assemble(b'{"__metadata__": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""),
    "empty file": b"",
    "seven bytes": bytes(7),
    "header longer than the file": (1000).to_bytes(8, "little") + b"{}",
    "header of 2^64 bytes": b"\xff" * 8 + b"{}",
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_is_an_adapter_error(raw):
    with pytest.raises(AdapterError) as caught:
        opened(raw)
    assert caught.value.reason == "damaged file"
    assert len(str(caught.value)) < 300


def test_what_the_hostile_headers_were_made_from_is_fine():
    assert opened(one()).read(["w"])["w"].tolist() == [0, 0]
    assert set(opened(two((0, 8), (8, 16), 16)).tensors) == {"a", "b"}
    assert opened(assemble({}, b"")).tensors == {}


def test_a_header_over_the_cap_is_never_read():
    reads = []

    def read_range(start, stop):
        reads.append((start, stop))
        return (MAX_HEADER_BYTES + 1).to_bytes(8, "little")

    with pytest.raises(AdapterError, match="header claims"):
        SafetensorsFile(read_range, 10**12)
    assert reads == [(0, 8)]


def test_reads_what_the_reference_library_wrote():
    rng = np.random.default_rng(0)
    arrays = {
        "f64": rng.standard_normal((3, 2)),
        "f32": rng.standard_normal((4, 5)).astype(np.float32),
        "f16": rng.standard_normal(7).astype(np.float16),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }
    read = opened(save(arrays, metadata={"format": "pt"})).read(arrays)
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == np.float32
        assert read[name].shape == array.shape
        assert np.array_equal(read[name], array.astype(np.float32))


@pytest.mark.parametrize(("dtype", "torch_name"), [("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2")])
def test_all_256_float8_values_agree_with_torch(dtype, torch_name):
    import torch

    codes = np.arange(256, dtype=np.uint8)
    theirs = torch.from_numpy(codes).view(getattr(torch, torch_name)).float().numpy()
    assert_same_bits(decoded(dtype, codes.tobytes(), 256), theirs)


@pytest.mark.parametrize(("dtype", "torch_name"), [("BF16", "bfloat16"), ("F16", "float16")])
def test_all_65536_half_precision_values_agree_with_torch(dtype, torch_name):
    import torch

    codes = np.arange(65536, dtype=np.uint16)
    theirs = torch.from_numpy(codes.view(np.int16)).view(getattr(torch, torch_name)).float().numpy()
    assert_same_bits(decoded(dtype, codes.tobytes(), 65536), theirs)


def test_float64_beyond_float32_becomes_infinite_and_a_signalling_nan_stays_nan():
    data = np.array([1e300, -1e300, 1e-300, 0.1]).tobytes() + (0x7FF0000000000001).to_bytes(8, "little")
    read = decoded("F64", data, 5)
    assert read[:4].tolist() == [np.inf, -np.inf, 0.0, float(np.float32(0.1))]
    assert np.isnan(read[4])


@pytest.mark.parametrize(("dtype", "size"), [("I64", 8), ("I8", 1), ("U8", 1), ("BOOL", 1), ("U16", 2)])
def test_a_wanted_tensor_must_be_floating_point_but_another_need_not(dtype, size):
    header = {"w": entry(), "other": entry(dtype, [1], [8, 8 + size])}
    file = opened(assemble(header, bytes(8 + size)))
    assert file.read(["w"])["w"].shape == (2,)
    with pytest.raises(AdapterError) as caught:
        file.read(["other"])
    assert caught.value.reason == "unexpected dtype"


def test_only_wanted_ranges_are_read_in_the_order_of_the_file():
    sizes = {"a": 64, "head": 50_000, "b": 64, "small": 16, "c": 64}  # numbers of float32; the head is 200 kB
    header, at = {}, 0
    for name, count in sizes.items():
        header[name] = entry("F32", [count], [at, at + 4 * count])
        at += 4 * count
    values = np.arange(at // 4, dtype=np.float32)
    reads = []
    file = opened(assemble(header, values.tobytes()), reads)
    start = {name: info.start for name, info in file.tensors.items()}
    read = file.read(["c", "a", "b"])
    assert reads[0] == (0, 8)
    assert reads[1] == (8, start["a"])
    assert reads[2:] == [(start[name], start[name] + 256) for name in "abc"]
    first = {"a": 0, "b": 50_064, "c": 50_064 + 64 + 16}
    for name in "abc":
        assert np.array_equal(read[name], np.arange(first[name], first[name] + 64, dtype=np.float32))


def test_small_neighbours_of_one_dtype_come_in_one_read(monkeypatch):
    monkeypatch.setattr("hubrank.checkpoints.safetensors_file._TOGETHER", 64)
    sizes = {
        "a": ("F32", 8),
        "b": ("F32", 8),
        "c": ("F32", 8),
        "h": ("F16", 4),
        "e": ("F32", 0),
        "d": ("F32", 40),
        "f": ("F32", 4),
    }
    header, data = {}, b""
    rng = np.random.default_rng(0)
    values = {}
    for name, (dtype, count) in sizes.items():
        values[name] = rng.standard_normal(count).astype(np.float32 if dtype == "F32" else np.float16)
        header[name] = entry(dtype, [2, count // 2], [len(data), len(data) + values[name].nbytes])
        data += values[name].tobytes()
    reads = []
    file = opened(assemble(header, data), reads)
    del reads[:]
    read = file.read(sizes)
    where = {name: (info.start, info.stop) for name, info in file.tensors.items()}
    runs = [("a", "b"), ("c", "c"), ("h", "h"), ("e", "e"), ("d", "d"), ("f", "f")]
    assert reads == [(where[first][0], where[last][1]) for first, last in runs]
    for name, tensor in read.items():
        assert np.array_equal(tensor, values[name].astype(np.float32).reshape(2, -1))
    read["a"][...] = 0
    assert np.array_equal(read["b"], values["b"].reshape(2, -1))


def test_the_same_header_on_files_of_two_sizes_is_checked_for_each():
    raw = one()
    assert set(opened(raw).tensors) == {"w"}
    with pytest.raises(AdapterError):
        opened(raw + b"\0")
    assert set(opened(raw).tensors) == {"w"}


def test_nothing_wanted_reads_nothing():
    reads = []
    file = opened(one(), reads)
    del reads[:]
    assert file.read([]) == {}
    assert reads == []


GOOD = assemble(
    {
        "__metadata__": {"format": "pt"},
        "w": entry("F32", [2, 2], [0, 16]),
        "h": entry("BF16", [3], [16, 22]),
        "q": entry("F8_E4M3", [2], [22, 24]),
        "d": entry("F64", [1], [24, 32]),
    },
    bytes(range(32)),
)


@given(
    flips=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, len(GOOD)) | st.none(),
)
@example(flips=[(7, 0x80)], cut=None)
@example(flips=[(0, GOOD[0])], cut=None)
def test_a_mutated_file_is_read_or_refused_never_anything_else(flips, cut):
    raw = bytearray(GOOD)
    for position, value in flips:
        raw[position] = value
    try:
        file = opened(bytes(raw[:cut]))
        tensors = file.read([name for name, info in file.tensors.items() if info.dtype.startswith(("F", "B"))])
    except AdapterError:
        return
    for name, tensor in tensors.items():
        assert tensor.dtype == np.float32
        assert tensor.shape == file.tensors[name].shape


@given(
    st.dictionaries(
        st.text(max_size=4),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]), inner)
            ),
        ),
    )
)
def test_any_json_header_is_read_or_refused(header):
    try:
        opened(assemble(header, bytes(16)))
    except AdapterError as error:
        assert error.reason == "damaged file"  # noqa: PT017 -- a header that happens to be good raises nothing
