"""Repositories of a hub, and what its scanners say, through the real client over real HTTP."""

from __future__ import annotations

import json

import pytest

from hubrank import check
from hubrank.check.policy import Policy
from hubrank.check.published import base_is_there, find_candidates
from hubrank.errors import HubError, InputError, UsageError
from tests.builders import BASE
from tests.check.builders import NOW, card, good_adapter
from tests.standin import Fault, Repo, stand_in_hub

ENDPOINT: list[str] = []


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with stand_in_hub() as running:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
        ENDPOINT.append(running.url)
        yield running


def publish(hub, tmp_path, name="team/one", *, security=None, folder="", **changes):
    """An adapter as a repository; ``security`` is what the hub's scanners say of it."""
    made = good_adapter(tmp_path / "made" / name, **changes)
    files = {f"{folder}{path.name}": path.read_bytes() for path in made.iterdir()}
    repo = hub.add(Repo(name, files))
    hub.add(Repo(BASE, {"config.json": b"{}"}))

    def answer(method, path):
        if path.startswith(f"/api/models/{name}") and "/refs" not in path:
            siblings = [{"rfilename": file, "size": len(data)} for file, data in repo.files.items()]
            info = {"id": name, "sha": repo.sha, "siblings": siblings, "tags": [], "securityRepoStatus": security}
            return Fault(200, {"Content-Type": "application/json"}, json.dumps(info).encode())
        return None

    hub.fault = answer
    return repo


def found_in(tmp_path, name="team/one", policy=None):
    report = check([name], cache_dir=tmp_path / "none", now=NOW, policy=policy or Policy(), endpoint=ENDPOINT[-1])
    return {finding.rule: finding for finding in report.findings}, report


def test_a_good_repository(hub, tmp_path):
    repo = publish(hub, tmp_path, security={"scansDone": True, "filesWithIssues": []})
    found, report = found_in(tmp_path)
    assert not found
    assert report.adapters[0].name == "team/one"
    assert report.adapters[0].revision == repo.sha


def test_what_the_scanners_found(hub, tmp_path):
    issues = [{"path": "adapter_model.safetensors", "level": "unsafe"}, {"path": "README.md", "level": "caution"}]
    issues += [{"path": "elsewhere/x.bin", "level": "unsafe"}, {"path": "adapter_config.json", "level": "queued"}]
    publish(hub, tmp_path, security={"scansDone": False, "filesWithIssues": issues})
    report = found_in(tmp_path)[1]
    said = [(finding.rule, finding.message) for finding in report.findings]
    assert said == [
        ("hub-security", "the Hub's scanners call adapter_model.safetensors unsafe"),
        ("hub-caution", "the Hub's scanners say 'caution' of README.md"),
        ("hub-caution", "the Hub has not scanned all files yet"),
    ]
    assert not report.findings[0].local


@pytest.mark.parametrize("status", [None, [], "safe", {"scansDone": True}, {"scansDone": True, "filesWithIssues": "x"}])
def test_a_status_that_is_not_understood_is_no_finding(hub, tmp_path, status):
    publish(hub, tmp_path, security=status)
    assert not found_in(tmp_path)[0]


def test_a_folder_of_a_repository(hub, tmp_path):
    publish(hub, tmp_path, folder="lora/")
    assert found_in(tmp_path)[1].adapters[0].name == "team/one/lora"
    assert found_in(tmp_path, "team/one/lora")[1].adapters[0].name == "team/one/lora"
    with pytest.raises(InputError, match="no folder other"):
        found_in(tmp_path, "team/one/other")


def test_a_repository_without_an_adapter(hub, tmp_path):
    publish(hub, tmp_path)
    hub.repos["team/one"].files = {"README.md": card().encode()}
    assert set(found_in(tmp_path)[0]) == {"config"}


def test_organisations_that_the_policy_does_not_allow(hub, tmp_path):
    publish(hub, tmp_path)
    assert set(found_in(tmp_path, policy=Policy(orgs=("other",)))[0]) == {"org-allowed"}
    assert not found_in(tmp_path, policy=Policy(orgs=("te*",)))[0]


def test_a_base_model_that_nobody_has(hub, tmp_path):
    publish(hub, tmp_path)
    del hub.repos[BASE]
    found, _ = found_in(tmp_path)
    assert set(found) == {"base-unknown"}
    assert BASE in found["base-unknown"].message
    assert base_is_there(BASE, hub.url) is False


def test_a_hub_that_does_not_know_does_not_answer_or_must_not_be_asked(hub, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="team/none"):
        found_in(tmp_path, "team/none")
    hub.add(Repo("team/gated", {}, gated=True))
    with pytest.raises(HubError, match="terms accepted"):
        found_in(tmp_path, "team/gated")
    hub.fault = lambda method, path: Fault(503)
    with pytest.raises(HubError, match="status 503"):
        found_in(tmp_path)
    assert base_is_there(BASE, hub.url) is None
    with pytest.raises(HubError, match="offline"):
        list(find_candidates(["team/one"], offline=True))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        found_in(tmp_path)
    assert base_is_there(BASE, hub.url) is None


@pytest.mark.parametrize("name", ["nowhere", "/no/such/folder", "a b/c", "org/name@", "::error::/x", ""])
def test_names_that_are_neither(name):
    with pytest.raises(UsageError, match="neither a folder"):
        list(find_candidates([name]))
