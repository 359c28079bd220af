"""The address of a Ray cluster: is anybody there, and is it reached over the loopback interface only?"""

from __future__ import annotations

import socket

from fedpref.errors import ConfigurationError

__all__ = ["check_address", "is_on_loopback"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CLIENT = "ray://"


def check_address(address: str) -> None:
    """Raise ConfigurationError for an address that Ray would choose itself, or that is none."""
    if address == "auto":
        raise ConfigurationError(
            "executor.address=auto may find a cluster of somebody else: name host:port, or leave it empty"
        )
    host, port = _host_and_port(address)
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(
            f"executor.address={address} must be of the form host:port or ray://host:port"
        )


def is_on_loopback(address: str, outer_host: str) -> bool:
    """True for a cluster of this machine that can be reached by the machine itself only.

    Args:
        address: a checked address.
        outer_host: this machine's address for others, for which Ray takes 127.0.0.1.

    Raises:
        ConfigurationError: nobody answers; Ray itself would try for minutes.
    """
    host, port = _host_and_port(address)
    may_be = host in _LOOPBACK and not address.startswith(_CLIENT)
    if may_be and _answers(outer_host, int(port)):
        return False
    if not _answers(host, int(port)):
        raise ConfigurationError(
            f"executor.address={address}: nobody answers there; start Ray there, or leave the address out"
        )
    return may_be


def _host_and_port(address: str) -> tuple[str, str]:
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    return host.strip("[]"), port


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError:
        return False
    return True
