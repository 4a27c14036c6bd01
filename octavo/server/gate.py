"""Who is asking, and may they? Between HTTP on one side, keys and their limits on the other.

Once there is a key in the store, only those who bring one may ask. Without any, whoever can connect
may, where the server listens to this machine only; elsewhere nobody, so that revoking the last key
opens nothing. Anonymous callers may be allowed in any case.

A web page from elsewhere that is open in a browser on this machine can connect, too. It is known by
its Origin header, and, where its own host name was made to resolve to this machine (DNS rebinding),
by its Host header.
"""

from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address
from time import monotonic
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest

from octavo.errors import Forbidden, Unauthorized
from octavo.server.calls import Call, Reply
from octavo.server.keys import Key, Keys
from octavo.server.limits import Grant, Limiter

ANSWER = 512  # tokens that are reserved for an answer of unknown length; few are longer


class Gate:
    def __init__(
        self,
        keys: Keys | None = None,
        *,
        allow_anonymous: bool = False,
        is_local: bool = True,
        origins: Collection[str] = (),
    ) -> None:
        """
        is_local  the server listens to this machine only
        origins   of web pages that may ask nevertheless; "*" for all
        """
        self._keys, self._allow_anonymous, self._is_local = keys, allow_anonymous, is_local
        self._origins = origins
        self._limiter = Limiter()

    def recognise(self, http: HttpRequest) -> Key | None:
        """None: nobody in particular. Raises Unauthorized, Forbidden."""
        is_open = self._is_local or self._allow_anonymous
        if self._keys is None or (is_open and not self._keys.are_there):
            if not self._allow_anonymous:
                self._check_place(http.headers)
            return None
        if text := _sent(http.headers):
            return self._keys.recognise(text)
        if self._allow_anonymous:
            return None
        raise Unauthorized("an API key is needed: send 'authorization: Bearer KEY' or 'x-api-key'")

    def known(self, http: HttpRequest) -> Key | None:
        """The key that came where none is needed. Who sends none is not looked up: a sign of life
        does not wait for the table of keys."""
        text = _sent(http.headers)
        if self._keys is None or not text:
            return None
        with suppress(Unauthorized):
            return self._keys.recognise(text)
        return None

    def _check_place(self, headers: Headers) -> None:
        """Raises Forbidden for a web page from elsewhere: programs send a Host at most, browsers
        send the page's Origin as well."""
        for host in headers.getlist("host"):
            if not _is_here(f"//{host}"):
                raise Forbidden(_elsewhere("host", host))
        for origin in headers.getlist("origin"):
            if not (_is_here(origin) or origin in self._origins or "*" in self._origins):
                raise Forbidden(f"{_elsewhere('origin', origin)}, or --cors-origin for it alone")

    def key(self, id: str) -> Key | None:
        """That of a tenant who asked before; None: nobody in particular. Raises Unauthorized once
        it was revoked."""
        if not id:
            return None
        if self._keys is None:
            raise Unauthorized("the API key is not known here any more: ask for a new one")
        return self._keys.named(id)

    def admit(self, key: Key | None, reply: Reply, *, in_background: bool = False) -> Grant | None:
        """Raises RateLimited, or BadRequest for what the key may never ask."""
        if key is None:
            return None
        prompts = sum(map(len, reply.prompt_ids))
        wanted = reply.call.params.max_tokens
        answer = ANSWER if wanted is None else min(wanted, ANSWER)
        num_tokens = prompts + answer * reply.num_choices
        return self._limiter.admit(key, num_tokens, monotonic(), in_background=in_background)

    def headers(self, key: Key | None) -> dict[str, str]:
        return self._limiter.headers(key, monotonic()) if key else {}


def _sent(headers: Headers) -> str:
    scheme, _, text = headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_here(url: str) -> bool:
    with suppress(ValueError):
        return is_loopback(urlsplit(url).hostname or "")
    return False


def _elsewhere(what: str, value: str) -> str:
    return (
        f"{what}: {value[:100]!r} is not this machine, and without keys nobody else may ask: "
        "make one with `octavo keys create`, or give --allow-anonymous"
    )


def priority(key: Key | None, call: Call) -> int:
    """A request may be less urgent than its key, not more."""
    return max(call.priority, key.limits.priority) if key else call.priority
