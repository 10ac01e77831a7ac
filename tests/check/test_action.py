"""The action's own steps, run by bash with the environment that GitHub gives them; the workflows in the docs fit the action."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.check.builders import card, good_adapter
from tests.check.test_formats import read_outputs

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
WORKFLOWS = sorted((ROOT / "docs" / "workflows").glob("*.yml"))
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the action's steps are bash")


def evaluated(text: str, inputs: dict[str, str]) -> str:
    """The few expressions that the action uses."""

    def value(match: re.Match[str]) -> str:
        name = match[1].strip()
        return inputs[name.removeprefix("inputs.")] if name.startswith("inputs.") else {"github.action_path": str(ROOT)}[name]

    return re.sub(r"\$\{\{(.*?)\}\}", value, str(text))


class Runner:
    """Runs the steps of the action as a runner does, one after another, until one fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outputs, self.summary = folder / "outputs", folder / "summary"
        shims = folder / "bin"
        shims.mkdir(parents=True)
        # Stands for the script that pip puts on the path.
        (shims / "hubrank").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hubrank "$@"\n')
        (shims / "hubrank").chmod(0o755)
        self.environment = {
            "PATH": f"{shims}:{os.environ['PATH']}",
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "HF_HUB_OFFLINE": "1",
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(folder),
            "GITHUB_OUTPUT": str(self.outputs),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "OMP_NUM_THREADS": "1",
        }

    def run(self, **given: str) -> tuple[int, str]:
        inputs = {name: str(one.get("default", "")) for name, one in ACTION["inputs"].items()}
        inputs |= {"package": "none"} | {name.replace("_", "-"): value for name, value in given.items()}
        out = ""
        for step in ACTION["runs"]["steps"]:
            if "if" in step and not inputs["sync"]:
                continue
            assert step["shell"] == "bash"
            assert "${{" not in step["run"], "an input inside a script could run as one"
            script = self.folder / "step.sh"
            script.write_text(step["run"])
            environment = self.environment | {name: evaluated(value, inputs) for name, value in step["env"].items()}
            command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
            done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
            out += done.stdout + done.stderr
            if done.returncode:
                return done.returncode, out
        return 0, out

    def read(self) -> dict[str, str]:
        return read_outputs(self.outputs.read_text("utf-8"))


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path)


def test_adapters_of_a_pull_request(runner, tmp_path):
    good_adapter(tmp_path / "adapters" / "org" / "good")
    bad = good_adapter(tmp_path / "adapters" / "org" / "bad one", seed=1)
    (bad / "run.py").write_text("x")
    code, out = runner.run(adapters="adapters", report="page.html")
    assert code == 1
    assert "::error file=adapters/org/bad one/run.py,title=hubrank code-files::" in out
    assert runner.read() == {"new": "", "failed": "1", "best_source": "", "best_score": ""}
    assert "2 adapters checked" in runner.summary.read_text()
    assert "Content-Security-Policy" in (tmp_path / "page.html").read_text()


def test_sarif_goes_to_a_file_and_annotations_to_the_log(runner, tmp_path):
    good_adapter(tmp_path / "adapters" / "org" / "mine", card=card(without=["license"]))
    code, out = runner.run(adapters="adapters", format="sarif", output="found.sarif")
    assert code == 0
    assert "::warning file=adapters/org/mine/README.md" in out
    assert '"version": "2.1.0"' in (tmp_path / "found.sarif").read_text()


def test_a_night(runner, tmp_path):
    for i in range(2):
        good_adapter(tmp_path / "hub" / "org" / f"a{i}", seed=i)
    code, out = runner.run(sync="hub", new="true")
    assert code == 0, out
    assert runner.read()["new"] == "org/a0\norg/a1"
    runner.outputs.unlink()
    good_adapter(tmp_path / "hub" / "org" / "b", seed=9)
    assert runner.run(sync="hub", new="true")[0] == 0
    assert runner.read()["new"] == "org/b"


def test_inputs_are_never_run(runner, tmp_path):
    evil = '"; touch owned; echo "$(touch owned)`touch owned`\n--help'
    code, _ = runner.run(adapters=evil, policy=evil, since=evil)
    assert code == 2
    assert not (tmp_path / "owned").exists()


def test_every_output_and_input_is_used():
    check = ACTION["runs"]["steps"][-1]
    for name, output in ACTION["outputs"].items():
        assert output["value"] == f"${{{{ steps.{check['id']}.outputs.{name} }}}}"
    used = " ".join(value for step in ACTION["runs"]["steps"] for value in step["env"].values())
    assert all(f"inputs.{name} " in used for name in ACTION["inputs"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_workflows_in_the_docs_give_the_action_what_it_takes(path):
    workflow = yaml.safe_load(path.read_text("utf-8"))
    uses = [
        step
        for job in workflow["jobs"].values()
        for step in job["steps"]
        if step.get("uses", "").startswith("hubrank/hubrank@")
    ]
    assert uses
    for step in uses:
        assert set(step["with"]) <= set(ACTION["inputs"])


def test_the_docs_name_the_workflows():
    text = (ROOT / "docs" / "ci.md").read_text("utf-8")
    assert all(f"workflows/{path.name}" in text for path in WORKFLOWS)
    gitlab = yaml.safe_load(re.search(r"## GitLab CI\n\n```yaml\n(.*?)```", text, re.DOTALL)[1])
    assert set(gitlab) == {"adapters", "zoo"}


def test_the_policy_in_the_docs_is_one(tmp_path):
    from hubrank.check.policy_file import read_policy
    from hubrank.check.rules import RULES

    text = (ROOT / "docs" / "ci.md").read_text("utf-8")
    path = tmp_path / "hubrank.toml"
    path.write_text(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])
    assert read_policy(path, RULES).target("banking.jsonl").margin == 0.5
