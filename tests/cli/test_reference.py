"""docs/cli.md says what the commands say of themselves."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import typer

from hubrank.cli.app import app

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("render_cli", DOCS / "render_cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leaves(command, name="hubrank"):
    yield name, command
    for word, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, f"{name} {word}")


def test_the_page_is_up_to_date(script):
    assert script.PAGE.read_text("utf-8") == script.rendered(), "run `make docs`"


def test_every_command_and_option_is_on_the_page(script):
    page = script.rendered()
    for name, command in leaves(typer.main.get_command(app)):
        assert f"## `{name}`\n" in page
        section = page.partition(f"## `{name}`\n")[2].partition("\n## ")[0]
        for option in command.params:
            if option.param_type_name == "option" and option.name != "help":
                assert f"`{option.opts[0]}`" in section, (name, option.opts)
                assert option.help, (name, option.opts)


def test_a_new_option_changes_the_page(script, monkeypatch):
    other = typer.Typer()

    @other.command("sync")
    def sync(brand_new: int = typer.Option(3, "--brand-new", metavar="N", help="A | B.")) -> None:
        """Do it."""

    @other.command("ls")
    def ls(cache_dir: str = "", format: str = "", quiet: bool = False, verbose: bool = False) -> None:
        """List."""

    monkeypatch.setattr(script, "app", other)
    assert "| `--brand-new` `N` | A \\| B. Default: `3`. |" in script.rendered()


def test_the_page_of_the_estimators_is_up_to_date():
    from hubrank.report.estimator_pages import estimators_markdown

    page = DOCS / "estimators.md"
    assert page.read_text("utf-8") == estimators_markdown(), "run `make docs`"


def test_the_help_of_search_and_the_page_name_every_estimator():
    from hubrank.cli.search import ESTIMATOR_HELP
    from hubrank.ranking.estimators import ESTIMATORS
    from hubrank.report.estimator_pages import estimators_markdown

    for name, estimator in ESTIMATORS.items():
        assert name in ESTIMATOR_HELP
        section = estimators_markdown().partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert (estimator.__doc__ or "").split("\n")[0] in section
        assert "Args:" not in section
        assert ":func:" not in section
