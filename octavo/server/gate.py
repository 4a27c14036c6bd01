"""Who is asking, and may they? Between HTTP on one side, keys and their limits on the other.

Once there is a key in the store, only those who bring one may ask. Without any, whoever can connect
may, where the server listens to this machine only; elsewhere nobody, so that revoking the last key
opens nothing. Anonymous callers may be allowed in any case.
"""

from time import monotonic

from starlette.requests import Request as HttpRequest

from octavo.errors import Unauthorized
from octavo.server.calls import Call, Reply
from octavo.server.keys import Key, Keys
from octavo.server.limits import Grant, Limiter

ANSWER = 512  # tokens that an answer is taken for beforehand; few are longer


class Gate:
    def __init__(
        self, keys: Keys | None = None, *, allow_anonymous: bool = False, is_local: bool = True
    ) -> None:
        """`is_local`: the server listens to this machine only."""
        self._keys, self._allow_anonymous, self._is_local = keys, allow_anonymous, is_local
        self._limiter = Limiter()

    def recognise(self, http: HttpRequest) -> Key | None:
        """None: nobody in particular. Raises Unauthorized."""
        is_open = self._is_local or self._allow_anonymous
        if self._keys is None or (is_open and not self._keys.are_there):
            return None
        scheme, _, text = http.headers.get("authorization", "").partition(" ")
        text = text.strip() if scheme.lower() == "bearer" else http.headers.get("x-api-key", "")
        if text:
            return self._keys.recognise(text)
        if self._allow_anonymous:
            return None
        raise Unauthorized("an API key is needed: send 'authorization: Bearer KEY' or 'x-api-key'")

    def key(self, id: str) -> Key | None:
        """That of a tenant who asked before; None: nobody in particular. Raises Unauthorized once
        it was revoked."""
        if not id:
            return None
        if self._keys is None:
            raise Unauthorized("its API key is not known here any more")
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


def priority(key: Key | None, call: Call) -> int:
    """A request may be less urgent than its key, not more."""
    return max(call.priority, key.limits.priority) if key else call.priority
