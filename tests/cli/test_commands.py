"""The commands as a user runs them: real processes, real files, exit codes and one clear line."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def hubrank(*arguments, cwd, env=None, **options):
    """Run a command in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HUBRANK_CACHE", "NO_COLOR", "FORCE_COLOR")}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **(env or {})}
    command = [sys.executable, "-m", "hubrank", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, **options)


def complaint(done, code):
    """The one line on stderr; checks the exit code, and that no traceback came with it."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("hubrank: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def write_adapter(folder: Path, seed: int = 0, *, base: str = MINILM, change=None) -> None:
    """A LoRA with MiniLM's shapes; ``change`` may spoil its tensors."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    tensors = {}
    for layer in range(2):
        for module in ("query", "value"):
            name = f"base_model.model.encoder.layer.{layer}.attention.self.{module}"
            tensors[f"{name}.lora_A.weight"] = random.normal(size=(4, 384)).astype(np.float16)
            tensors[f"{name}.lora_B.weight"] = random.normal(size=(384, 4)).astype(np.float16)
    if change is not None:
        change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text(f"---\ndatasets: [task{seed}]\nlicense: mit\n---\n")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A cache with the example zoo in it."""
    cache = tmp_path_factory.mktemp("cache")
    done = hubrank("sync", "--hub", EXAMPLES / "zoo", "--cache-dir", cache, cwd=cache)
    assert done.returncode == 0, done.stderr
    return cache


def test_sync_prints_the_promised_json(tmp_path):
    write_adapter(tmp_path / "hub/org/one")
    done = hubrank("sync", "--hub", "hub", "--cache-dir", "zoo", "--format", "json", cwd=tmp_path)
    value = json.loads(done.stdout)
    promised = ["added", "updated", "removed", "unchanged", "skipped", "requests", "bytes_read", "bytes_whole", "seconds"]
    assert list(value)[: len(promised)] == promised
    assert value["added"] == 1
    assert value["bytes_read"] <= value["bytes_whole"]


def test_sync_skips_counts_and_names_bad_adapters(tmp_path):
    write_adapter(tmp_path / "hub/org/good", 1)

    def with_nan(tensors):
        next(iter(tensors.values()))[0, 0] = np.nan

    def too_narrow(tensors):
        name = next(name for name in tensors if "lora_B" in name)
        tensors[name] = np.zeros((384, 3), np.float16)

    write_adapter(tmp_path / "hub/org/nan", 2, change=with_nan)
    write_adapter(tmp_path / "hub/org/shape", 3, change=too_narrow)
    plain = hubrank("sync", "--hub", "hub", "--cache-dir", "zoo", cwd=tmp_path)
    assert plain.returncode == 0
    assert "1 added" in plain.stdout
    assert ["1", "not", "finite"] in [line.split() for line in plain.stdout.splitlines()]
    assert "org/nan" not in plain.stderr
    loud = hubrank("sync", "--hub", "hub", "--cache-dir", "zoo", "-v", cwd=tmp_path)
    assert "skipped org/nan: not finite" in loud.stderr
    assert "skipped org/shape: shape mismatch" in loud.stderr
    listed = json.loads(hubrank("ls", "--cache-dir", "zoo", "--format", "json", cwd=tmp_path).stdout)
    assert [row["source"] for row in listed] == ["org/good"]


def test_search_ranks_the_example_zoo(zoo):
    done = hubrank("search", "--target", EXAMPLES / "banking.jsonl", "--cache-dir", zoo, "--format", "json", cwd=zoo)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert [row["rank"] for row in value["ranking"]] == list(range(1, 11))
    scores = [row["score"] for row in value["ranking"]]
    assert scores == sorted(scores, reverse=True)
    # No adapter of the zoo has seen banking77; the nearest are those for another assistant's intents and topics.
    assert {row["task"] for row in value["ranking"][:3]} <= {"clinc150", "clinc_domain"}
    assert value["base"] == MINILM
    assert value["target"] | {"seconds": 0, "device": ""} == {
        "path": str(EXAMPLES / "banking.jsonl"),
        "examples": 231,
        "task": "classification",
        "labels": 76,
        "steps": value["runs"][0]["steps"],
        "seconds": 0,
        "device": "",
    }
    assert 20 <= value["runs"][0]["steps"] <= 75
    assert value["zoo"]["sources"] == value["zoo"]["compared"] + sum(value["zoo"]["skipped"].values())
    assert value["verdict"]["relevant"] is True
    assert all(len(row["layers"]) == 6 for row in value["ranking"])
    first = value["ranking"][0]
    assert {"source", "revision", "subfolder", "method", "task", "score", "similarity", "layers", "warnings"} <= set(first)
    again = hubrank("search", "--target", EXAMPLES / "banking.jsonl", "--cache-dir", zoo, "--format", "json", cwd=zoo)
    assert json.loads(again.stdout)["ranking"] == value["ranking"]


def test_search_and_show_explain(zoo):
    target = ("--target", EXAMPLES / "banking.jsonl", "--cache-dir", zoo, "--format", "json")
    done = hubrank("search", *target, "--explain", cwd=zoo)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    first, *others = value["explanations"]
    assert [one["rank"] for one in (first, *others)] == [1, 2, 3]
    assert first["source"] == value["ranking"][0]["source"]
    assert first["of"] == 34
    assert first["gap"]["source"] == value["ranking"][1]["source"]
    (last,) = [row["source"] for row in value["ranking"] if row["rank"] == 8]
    shown = hubrank("show", last, *target, cwd=zoo)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["explanation"]["rank"] == 8
    assert "tuned before" in shown.stderr
    assert json.loads(shown.stdout)["standing"]["others"] == 33


def test_a_terminal_that_shows_only_ascii(zoo):
    arguments = ("--target", EXAMPLES / "banking.jsonl", "--explain", "--cache-dir", zoo)
    done = hubrank("search", *arguments, cwd=zoo, env={"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout
    assert "1. example-" in done.stdout
    assert "###" in done.stdout


@pytest.mark.parametrize("style", ["table", "csv", "md"])
def test_search_prints_every_format(zoo, style):
    arguments = ("--target", EXAMPLES / "monotonicity.jsonl", "--steps", 5, "--top", 3, "--format", style)
    done = hubrank("search", *arguments, "--cache-dir", zoo, cwd=zoo)
    assert done.returncode == 0, done.stderr
    if style == "csv":
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert [row["rank"] for row in rows] == ["1", "2", "3"]
    else:
        assert done.stdout.count("example-") >= 3
    if style == "table":
        lines = [line.strip() for line in done.stdout.splitlines()]
        code = [line for line in lines if line.startswith(("from peft", "model ="))]
        assert len(code) == 2
        compile("\n".join(code), "snippet", "exec")
    assert "5 steps" in done.stderr
    assert "tuned" not in done.stdout


def test_the_two_lines_load_the_winner(zoo):
    from hubrank.report.snippet import loading_lines
    from hubrank.target.base import find_base
    from hubrank.zoo.store import Zoo

    with Zoo(zoo) as opened:
        source = opened.sources()[0]
    code = "\n".join(loading_lines(source, str(find_base(MINILM).folder)))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{code}\nprint(len(model.peft_config))"],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "1", done.stderr


ROW = '{"text": "some words", "label": "a"}\n{"text": "other words", "label": "b"}\n'
BAD_TARGETS = {
    "empty": (b"", "is empty"),
    "not_json": (ROW.encode() + b"{nope\n", ":3: not JSON"),
    "no_text": (ROW.encode() + b'{"label": "a"}\n', ":3: no text field"),
    "no_label": (ROW.encode() + b'{"text": "a"}\n', ":3: no label field"),
    "mixed": (ROW.encode() * 5 + b'{"text": "a", "label": 1}\n', ":11: labels of mixed types"),
    "one_class": (b'{"text": "a b", "label": "same"}\n' * 9, 'every row has the label "same"'),
    "few": (ROW.encode() * 3, "only 6 rows"),
    "latin1": (ROW.encode() * 5 + b'{"text": "caf\xe9", "label": "a"}\n', ":11: not UTF-8"),
}


@pytest.mark.parametrize("name", sorted(BAD_TARGETS))
def test_a_bad_target_is_one_clear_line(zoo, tmp_path, name):
    content, says = BAD_TARGETS[name]
    (tmp_path / "target.jsonl").write_bytes(content)
    done = hubrank("search", "--target", "target.jsonl", "--cache-dir", zoo, cwd=tmp_path)
    # An incomplete file is refused for its first fault, whatever its length.
    assert says in complaint(done, 3)


def test_no_such_target(zoo, tmp_path):
    done = hubrank("search", "--target", "missing.jsonl", "--cache-dir", zoo, cwd=tmp_path)
    assert complaint(done, 3) == "hubrank: missing.jsonl: no such file"


def test_a_text_of_a_megabyte_is_cut_and_said_once(zoo, tmp_path):
    rows = [json.dumps({"text": "word " * 200_000, "label": "a"}), *(ROW.splitlines() * 5)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    done = hubrank("search", "--target", "t.jsonl", "--cache-dir", zoo, "--steps", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cut to its first") == 1


def test_an_unknown_base(zoo):
    target = ("--target", EXAMPLES / "topics.jsonl", "--cache-dir", zoo)
    assert "neither a folder" in complaint(hubrank("search", *target, "--base", "no such//thing", cwd=zoo), 3)
    line = complaint(hubrank("search", *target, "--base", "sentence-transformers/all-MiniLM-L12-v2", cwd=zoo), 5)
    assert MINILM in line
    assert "did you mean" in line


def test_a_zoo_whose_base_is_nowhere(tmp_path):
    write_adapter(tmp_path / "hub/org/one", base="nobody/nothing")
    hubrank("sync", "--hub", "hub", "--cache-dir", "zoo", cwd=tmp_path)
    done = hubrank("search", "--target", EXAMPLES / "topics.jsonl", "--cache-dir", "zoo", cwd=tmp_path)
    assert "base model nobody/nothing is not on this machine" in complaint(done, 4)


def test_an_empty_zoo_says_how_to_fill_it(tmp_path):
    done = hubrank("search", "--target", EXAMPLES / "topics.jsonl", "--cache-dir", "nothing", cwd=tmp_path)
    assert "hubrank sync" in complaint(done, 5)
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_cache_says_how_to_rebuild_it_and_does(tmp_path):
    write_adapter(tmp_path / "hub/org/one")
    hubrank("sync", "--hub", "hub", "--cache-dir", "zoo", cwd=tmp_path)
    database = tmp_path / "zoo/zoo/cache.db"
    database.write_bytes(b"not a database" * 1000)
    for command in (["ls"], ["sync", "--hub", "hub"], ["cache", "verify"], ["search", "--target", EXAMPLES / "topics.jsonl"]):
        done = hubrank(*command, "--cache-dir", "zoo", cwd=tmp_path)
        assert "hubrank cache clear" in complaint(done, 5)
    assert "--yes" in complaint(hubrank("cache", "clear", "--cache-dir", "zoo", cwd=tmp_path), 2)
    assert hubrank("cache", "clear", "--yes", "--cache-dir", "zoo", cwd=tmp_path).returncode == 0
    assert "1 added" in hubrank("sync", "--hub", "hub", "--cache-dir", "zoo", cwd=tmp_path).stdout


def test_clear_touches_nothing_that_is_not_its_own(tmp_path):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo/lion.txt").write_text("mine")
    assert "CACHEDIR.TAG" in complaint(hubrank("cache", "clear", "--yes", "--cache-dir", ".", cwd=tmp_path), 2)
    assert (tmp_path / "zoo/lion.txt").read_text() == "mine"


def test_show_ls_cache_and_doctor(zoo):
    name = "example-intent/minilm-clinc150-lora-r8-qv-s33"
    shown = hubrank("show", name, "--cache-dir", zoo, cwd=zoo).stdout
    assert "apache-2.0" in shown
    assert "encoder 5" in shown
    assert json.loads(hubrank("show", name, "--cache-dir", zoo, "--format", "json", cwd=zoo).stdout)["rank"] == 8
    assert "did you mean" in complaint(hubrank("show", name + "3", "--cache-dir", zoo, cwd=zoo), 2)
    assert "sources match" in complaint(hubrank("show", "clinc", "--cache-dir", zoo, cwd=zoo), 2)
    listed = hubrank("ls", "--task", "clinc", "--cache-dir", zoo, "--format", "csv", cwd=zoo).stdout
    assert {row["task"] for row in csv.DictReader(io.StringIO(listed))} == {"clinc150", "clinc_domain"}
    facts = json.loads(hubrank("cache", "info", "--cache-dir", zoo, "--format", "json", cwd=zoo).stdout)
    assert facts["sources"] == facts["bases"][MINILM] >= 30
    assert hubrank("cache", "verify", "--cache-dir", zoo, cwd=zoo).returncode == 0
    doctor = hubrank("doctor", "--cache-dir", zoo, "--format", "json", cwd=zoo)
    assert doctor.returncode == 0, doctor.stdout
    assert {"torch", "cache", "hub", "device", "base model"} <= {row["what"] for row in json.loads(doctor.stdout)}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serch"], "search"),
        (["search"], "--target"),
        (["search", "--target", "x", "--top", "0"], "--top"),
        (["search", "--target", str(EXAMPLES / "topics.jsonl"), "--device", "tpu"], "tpu"),
        (["search", "--target", str(EXAMPLES / "topics.jsonl"), "--estimator", "luck"], "three-views"),
        (["search", "--target", str(EXAMPLES / "topics.jsonl"), "--estimator", "three-view"], "did you mean three-views?"),
        (["ls", "--format", "xml"], "xml"),
        (["sync", "--limit", "-1"], "--limit"),
    ],
)
def test_a_wrong_command_line(zoo, arguments, says):
    extra = ["--cache-dir", zoo] if arguments[0] != "serch" else []
    assert says in complaint(hubrank(*arguments, *extra, cwd=zoo), 2)


def test_a_hub_that_is_no_folder(tmp_path):
    assert "no such folder" in complaint(hubrank("sync", "--hub", "nowhere", "--cache-dir", "zoo", cwd=tmp_path), 4)


def test_an_interrupt_leaves_with_130(zoo):
    command = [sys.executable, "-m", "hubrank", "search", "--target", EXAMPLES / "banking.jsonl", "--steps", "5000"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([*command, "--cache-dir", zoo], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "tuning" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.endswith("hubrank: interrupted; what was done is kept\n")
    assert "Traceback" not in said


def test_hostile_names_come_out_inert(tmp_path):
    folder = tmp_path / "hub/=HYPERLINK(1)/[red]x[{red]\x1b[31m|*_`"
    write_adapter(folder)
    (folder / "README.md").write_text("---\ndatasets: ['\\e]0;owned\\a=cmd|1 [bold]x[/bold] \\u202e']\n---\n")
    hubrank("sync", "--hub", "hub", "--cache-dir", "zoo", cwd=tmp_path)
    for style in ("table", "json", "csv", "md"):
        printed = hubrank("ls", "--cache-dir", "zoo", "--format", style, cwd=tmp_path, env={"FORCE_COLOR": "1"}).stdout
        assert "\x1b]" not in printed
        assert "\x1b[31m" not in printed
        assert "\u202e" not in printed
        assert "HYPERLINK" in printed
        if style == "csv":
            assert not any(cell.startswith("=") for row in csv.reader(io.StringIO(printed)) for cell in row)
        if style == "md":
            assert "\\[red\\]" in printed
        if style == "table":
            assert "[red]x" in printed


def test_a_closed_pipe_is_no_error(zoo):
    command = f"{sys.executable} -m hubrank ls --cache-dir {zoo} --format json | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[\n"
    assert "Traceback" not in done.stderr


def test_the_defaults_of_search_are_the_library_s():
    """They stand in the command as well, so that its help page needs none of the library."""
    import inspect

    from hubrank.cli.search import search
    from hubrank.ranking.search import SearchSettings

    command = {name: parameter.default for name, parameter in inspect.signature(search).parameters.items()}
    settings = SearchSettings()
    for name in ("base", "top", "steps", "seed", "device", "estimator", "offline", "gone"):
        assert command[name] == getattr(settings, name), name
