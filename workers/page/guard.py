"""Who may see the page: decided before anything is answered. There is nothing to change by a request.

By the address it listens on (loopback, or a token is needed), the ``Host`` that a browser believes to talk to (so that
no foreign page can reach it under a name of its own), and the token.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

from clipmux.engine.errors import UsageError

TOKEN_LEAST = 16
COOKIE_DAYS = 30
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Http:
    """Where to listen and who may come. Checked when made.

    Args:
        host: an address or a name of this machine.
        port: 0 for any that is free.
        token: what whoever comes must know; None on loopback only.
    """

    host: str
    port: int
    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise UsageError(f"--http {self.host} is open to other machines: give --token too, or listen on 127.0.0.1")
        if self.token is not None and not (
            len(self.token) >= TOKEN_LEAST
            and self.token.isascii()
            and self.token.isprintable()
            and " " not in self.token
        ):
            raise UsageError(f"--token is too weak: give at least {TOKEN_LEAST} letters and digits that nobody guesses")


def is_loopback(host: str) -> bool:
    """Nothing but this machine can connect to it."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


class Guard:
    """Lets in who may come, and gives every answer the headers that keep a browser from doing more than it should."""

    def __init__(self, app: App, http: Http, port: int) -> None:
        self._app = app
        self._token = http.token
        self._hosts = {"localhost", http.host.strip("[]").lower(), *_names_of_this_machine()}
        self._cookie = f"clipmux_{port}"  # browsers keep one cookie per host, whatever the port
        self._value = hmac.new((http.token or "").encode(), b"clipmux page", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._is_ours(headers.get("host", "")):
            await _say(send, 421, "This is not the address of this page: use localhost or the machine's own name.\n")
        elif self._token is None or self._knows(headers):
            await self._app(scope, receive, _with_headers(send))
        elif self._tells(scope):
            await self._let_in(scope, send)
        else:
            await _say(send, 401, "Open this page once with ?token=… in its address.\n", {"www-authenticate": "Bearer"})

    def _is_ours(self, host: str) -> bool:
        """A name that only this machine can have, or an address: no foreign name can be pointed at those."""
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::\d{1,5})?", host)
        if match is None:
            return False
        name = (match[1] or match[2]).lower().rstrip(".")
        if name in self._hosts:
            return True
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name)
            return True
        return False

    def _knows(self, headers: dict[str, str]) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._same(token.strip(), self._token or ""):
            return True
        # By hand: other programs of this host send their cookies here too, and http.cookies gives up at an odd one.
        cookies = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        return any(name == self._cookie and self._same(value, self._value) for name, _, value in cookies)

    def _tells(self, scope: Scope) -> bool:
        given = _query(scope).get("token", [])
        # A "+" in an address stands for a space, which no token has: it was meant.
        return len(given) == 1 and self._same(given[0].replace(" ", "+"), self._token or "")

    async def _let_in(self, scope: Scope, send: Send) -> None:
        """Keep who told the token by a cookie, and take the token out of the address, where it would be seen."""
        rest = {name: values for name, values in _query(scope).items() if name != "token"}
        path = "/" + scope["raw_path"].decode("latin-1").lstrip("/\\")  # "//host" would be another's
        location = path + (f"?{urlencode(rest, doseq=True)}" if rest else "")
        cookie = f"{self._cookie}={self._value}; Path=/; Max-Age={COOKIE_DAYS * 86400}; HttpOnly; SameSite=Strict"
        await _say(send, 303, "", {"location": location, "set-cookie": cookie})

    @staticmethod
    def _same(given: str, right: str) -> bool:
        return hmac.compare_digest(given.encode(), right.encode())


def _query(scope: Scope) -> dict[str, list[str]]:
    try:
        return parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=16)
    except ValueError:
        return {}


def _with_headers(send: Send) -> Send:
    added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return wrapped


async def _say(send: Send, status: int, text: str, headers: dict[str, str] | None = None) -> None:
    body = text.encode()
    lines = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), **(headers or {})}
    start = [(name.encode(), value.encode("latin-1")) for name, value in lines.items()]
    await _with_headers(send)({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


def _names_of_this_machine() -> set[str]:
    name = socket.gethostname().lower()
    return {name, f"{name}.local"}
