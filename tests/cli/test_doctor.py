"""``hubrank doctor``: what it finds, and what it never says."""

from __future__ import annotations

import importlib.metadata
import json
import os

import pytest

from hubrank.zoo.lock import sync_lock


@pytest.fixture
def findings(hubrank, tmp_path):
    def look(*options):
        done = hubrank("doctor", "--cache-dir", tmp_path / "cache", "--format", "json", *options)
        return {row["what"]: row for row in json.loads(done.out)}, done

    return look


def test_a_token_is_mentioned_and_never_printed(findings, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_mine")
    found, done = findings("-v")
    assert found["token"]["level"] == "ok"
    assert "there is one" in found["token"]["detail"]
    assert "secret" not in done.out + done.err
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    found, _ = findings()
    assert found["token"]["detail"].startswith("none")


def test_who_holds_the_zoo_is_said_while_somebody_does(findings, tmp_path):
    assert "lock" not in findings()[0]
    with sync_lock(tmp_path / "cache"):
        found, done = findings()
    assert found["lock"]["level"] == "warn"
    assert f"process {os.getpid()} on " in found["lock"]["detail"]
    assert done.code == 0
    assert "lock" not in findings()[0]


def test_ray_may_be_missing(findings, monkeypatch):
    version = importlib.metadata.version

    def without_ray(name):
        if name == "ray":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_ray)
    found, done = findings()
    assert done.code == 0
    assert found["ray"]["level"] == "ok"
    assert "hubrank[ray]" in found["ray"]["detail"]


def test_it_looks_for_the_bases_that_are_named(findings):
    found, done = findings("--base", "nobody/nothing")
    assert found["base model"]["level"] == "warn"
    assert "nobody/nothing" in found["base model"]["detail"]
    assert done.code == 0
