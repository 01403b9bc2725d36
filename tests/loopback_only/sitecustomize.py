"""On PYTHONPATH of every test and of every Python that a test starts: connections leave this machine for nobody.

An audit hook, so that no library can be quicker than the guard or undo it.
"""

import ipaddress
import sys
from typing import Any


def _is_local(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = str(address[0]).partition("%")[0]
    if host in ("", "localhost"):
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified


def _refuse_the_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto") and not _is_local(arguments[1]):
        raise ConnectionRefusedError(f"tests may reach loopback only, not {arguments[1]!r}")


sys.addaudithook(_refuse_the_network)
