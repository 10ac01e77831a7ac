"""Which addresses an index of strangers may send us to: servers of the web, and not what lies inside our own network."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from hubrank.errors import HubAnswerError, HubError
from hubrank.hubs.headers import origin

__all__ = ["Addresses"]

_OWN = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


@dataclass(frozen=True, slots=True)
class Addresses:
    """What may be asked.

    Attributes:
        loopback: this machine itself too, and without TLS: where the index lies there as well.
    """

    loopback: bool = False

    @classmethod
    def of_index(cls, address: str) -> Addresses:
        """What an index at an address may name.

        Raises:
            HubError: the index itself is not asked for there.
        """
        try:
            scheme, host, _ = origin(address)
        except ValueError:
            raise HubError(f"--hub zips:{address[:200]!r} is not an address of the web") from None
        loopback = _is_loopback(host)
        if scheme != "https" and not loopback:
            raise HubError(f"--hub zips:{address[:200]}: give an address with https, or a folder")
        if urlsplit(address).query or urlsplit(address).fragment:
            raise HubError(f"--hub zips:{address[:200]}: give the address of the folder that holds all.json")
        return cls(loopback)

    def check(self, url: str) -> None:
        """Raise where an address must not be asked, be it named by the index or by a redirect.

        A name that leads into our own network is not looked up: no token and no cookie goes out, and what comes back must
        be the zip file that the index knows.

        Raises:
            HubAnswerError: ``unsafe address``.
        """
        try:
            scheme, host, _ = origin(url)
        except ValueError:
            raise HubAnswerError("unsafe address", "what is named is not an address of the web") from None
        if self.loopback and _is_loopback(host):
            return
        if scheme != "https":
            raise HubAnswerError("unsafe address", f"{host} is named without https")
        if _is_loopback(host) or _is_private(host):
            raise HubAnswerError("unsafe address", f"{host} is not on the web")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _is_private(host: str) -> bool:
    """Of this machine or network, as far as the name itself says."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        name = host.rstrip(".")
        last = name.rpartition(".")[2]
        # The C library takes 127.1, 0x7f.1 and 2130706433 for numbers; no domain of the web ends in one.
        return "." not in name or name.endswith(_OWN) or last.isdigit() or last.startswith("0x")
