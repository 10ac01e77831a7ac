"""The house: data flows one way, and the start is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hubrank"
# From the top of the house to its bottom; what stands beside the rooms may be imported from everywhere below it.
ROOMS = ("cli", "report", "check", "benchmark", "ranking", "target", "zoo", "signatures", "checkpoints", "hubs")
EVERYWHERE = ("errors", "types", "_version")
# The functions that commands are made of; only the command line stands above them.
ABOVE = ("api", "diagnosis")
# What may be loaded to print a help page: hubrank's own front, typer, and what typer takes along where it is installed.
MAY_LOAD_AT_START = {
    *("hubrank", "typer", "rich", "annotated_doc", "shellingham", "colorama", "click", "typing_extensions"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection"),
}


def imports_of(file: Path) -> set[str]:
    """The rooms that a file imports at run time; what only annotations need does not count."""
    found = set()
    tree = ast.parse(file.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hubrank"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("hubrank.")}
    return found


@pytest.mark.parametrize("room", [room for room in ROOMS if (PACKAGE / room).is_dir()])
def test_a_room_imports_only_rooms_below_it(room):
    below = set(ROOMS[ROOMS.index(room) :]) | set(EVERYWHERE) | (set(ABOVE) if room == "cli" else set())
    for file in (PACKAGE / room).rglob("*.py"):
        assert imports_of(file) <= below, file


@pytest.mark.parametrize("room", ["signatures", "ranking/estimators"])
def test_arithmetic_does_no_io(room):
    for file in (PACKAGE / room).rglob("*.py"):
        assert not imports_of(file) & {"hubs", "zoo", "cli", "report", "target"}, file
        assert "open(" not in file.read_text("utf-8"), file


def test_only_the_command_line_prints():
    for file in PACKAGE.rglob("*.py"):
        if "cli" in file.relative_to(PACKAGE).parts:
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            assert not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stdout.write")), file


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["sync", "--help"], ["--version"]])
def test_the_start_loads_only_what_the_list_allows(arguments):
    code = (
        "import sys; before = set(sys.modules); from hubrank.cli import run; code = run(sys.argv[1:]);"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "new -= set(sys.stdlib_module_names) | {name for name in new if name.startswith('_')};"
        "print('LOADED', *sorted(new), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.rpartition("LOADED")[2].split())
    assert loaded <= MAY_LOAD_AT_START


def test_importing_the_library_loads_no_framework():
    code = "import sys, hubrank; hubrank.sync, hubrank.Zoo, hubrank.search; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "peft", "adapters"} & set(done.stdout.split())


def test_everything_promised_is_there():
    import hubrank

    for name in hubrank.__all__:
        assert getattr(hubrank, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hubrank.nothing  # noqa: B018


def test_every_error_knows_its_exit_code():
    from hubrank import errors

    codes = {name: getattr(errors, name).exit_code for name in errors.__all__}
    assert set(errors.__all__) == {n for n in vars(errors) if n.endswith("Error") and not n.startswith("_")}
    for name, code in codes.items():
        assert f"{name}" in (errors.__doc__ or "")
        assert code in (2, 3, 4, 5, 70)
