"""Who is asking, and may they? Between HTTP on one side, keys and their limits on the other.

Without a key in the store everybody may ask, which is why the server then listens to this machine
only, unless told otherwise. With one, only those who bring one may, unless anonymous callers are
allowed.
"""

from time import monotonic

from starlette.requests import Request as HttpRequest

from octavo.errors import Unauthorized
from octavo.server.calls import Call, Reply
from octavo.server.keys import Key, Keys
from octavo.server.limits import Grant, Limiter

ANSWER = 512  # tokens that an answer is taken for beforehand; few are longer


class Gate:
    def __init__(self, keys: Keys | None = None, *, allow_anonymous: bool = False) -> None:
        self._keys, self._allow_anonymous = keys, allow_anonymous
        self._limiter = Limiter()

    def recognise(self, http: HttpRequest) -> Key | None:
        """None: nobody in particular. Raises Unauthorized."""
        if self._keys is None or not self._keys.are_there:
            return None
        scheme, _, text = http.headers.get("authorization", "").partition(" ")
        text = text.strip() if scheme.lower() == "bearer" else http.headers.get("x-api-key", "")
        if text:
            return self._keys.recognise(text)
        if self._allow_anonymous:
            return None
        raise Unauthorized("an API key is needed: send 'authorization: Bearer KEY' or 'x-api-key'")

    def admit(self, key: Key | None, reply: Reply) -> Grant | None:
        """Raises RateLimited, or BadRequest for what the key may never ask."""
        if key is None:
            return None
        prompts = sum(map(len, reply.prompt_ids))
        wanted = reply.call.params.max_tokens
        answer = ANSWER if wanted is None else min(wanted, ANSWER)
        return self._limiter.admit(key, prompts + answer * reply.num_choices, monotonic())

    def headers(self, key: Key | None) -> dict[str, str]:
        return self._limiter.headers(key, monotonic()) if key else {}


def priority(key: Key | None, call: Call) -> int:
    """A request may be less urgent than its key, not more."""
    return max(call.priority, key.limits.priority) if key else call.priority
