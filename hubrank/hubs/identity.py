"""Who we are to the hub, as ``huggingface_hub`` has it: HF_ENDPOINT, HF_TOKEN or the token of a login, and our user agent."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from hubrank._version import VERSION
from hubrank.errors import UsageError
from hubrank.hubs.headers import origin

if TYPE_CHECKING:
    from requests import PreparedRequest

__all__ = ["Bearer", "hub_endpoint", "hub_token", "user_agent"]

_HF = "https://huggingface.co"


class Bearer:
    """Puts the token into a request at the last moment, so that nothing that may be printed holds it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def __repr__(self) -> str:
        return "<token>"


def hub_endpoint() -> str:
    """The address of the hub: HF_ENDPOINT, else (also where that is empty) the HF Hub's own.

    Raises:
        UsageError: HF_ENDPOINT is no address.
    """
    from huggingface_hub import constants

    endpoint = str(constants.ENDPOINT).strip().rstrip("/") or _HF
    try:
        origin(endpoint)
    except ValueError:
        # A password in it is not printed.
        what = "carries a user's name" if "@" in endpoint else f"is {endpoint[:100]!r}, which is no address"
        raise UsageError(f"HF_ENDPOINT {what}; write it as https://HOST") from None
    return endpoint


def hub_token() -> str | None:
    """HF_TOKEN, else the token of a login; None where there is none, or HF_HUB_DISABLE_IMPLICIT_TOKEN is set.

    Raises:
        UsageError: what is set can be no token.
    """
    token = _headers(None).get("authorization", "").removeprefix("Bearer ") or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError("HF_TOKEN, or the token of your login, holds characters that no token has; copy it again, or unset it")
    return token


@cache
def user_agent() -> str:
    """Names hubrank, and the versions that huggingface_hub names too."""
    return _headers(False)["user-agent"]


def _headers(token: bool | None) -> Mapping[str, str]:
    from huggingface_hub.utils._headers import build_hf_headers

    headers: Mapping[str, str] = build_hf_headers(token=token, library_name="hubrank", library_version=VERSION)
    return headers
