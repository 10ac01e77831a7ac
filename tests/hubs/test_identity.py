"""What the environment says of the hub and of us: used as it is meant, or refused in one line that says the way out."""

from __future__ import annotations

import pytest

from hubrank.errors import UsageError
from hubrank.hubs.identity import hub_endpoint, hub_token


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://hub.example/", "https://hub.example"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("", "https://huggingface.co"),
        (" https://hub.example\n", "https://hub.example"),
    ],
)
def test_the_endpoint(monkeypatch, given, used):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", given)
    assert hub_endpoint() == used


@pytest.mark.parametrize("given", ["hub.example", "localhost:8000", "ftp://hub.example", "https://", "https://a:b:c"])
def test_what_is_no_endpoint(monkeypatch, given):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", given)
    with pytest.raises(UsageError, match=r"HF_ENDPOINT is .*, which is no address; write it as https://HOST"):
        hub_endpoint()


def test_a_password_in_the_endpoint_is_not_printed(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://me:secret@hub.example")
    with pytest.raises(UsageError, match="HF_ENDPOINT carries a user's name; write it as https://HOST") as caught:
        hub_endpoint()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("given", "used"), [("hf_abc", "hf_abc"), ("hf_abc\n", "hf_abc"), ("  ", None)])
def test_the_token(monkeypatch, given, used):
    monkeypatch.setenv("HF_TOKEN", given)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    assert hub_token() == used


@pytest.mark.parametrize("given", ["\u0442\u043e\u043a\u0435\u043d", "tok\u00e9n", "hf abc", "hf\x1b[31m"])
def test_what_is_no_token_is_not_printed(monkeypatch, given):
    monkeypatch.setenv("HF_TOKEN", given)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    with pytest.raises(UsageError, match="HF_TOKEN") as caught:
        hub_token()
    assert given not in str(caught.value)
