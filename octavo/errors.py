"""Every error Octavo raises, and the HTTP status it becomes.

OctavoError                500
├── UsageError             400   the caller must change something
│   ├── BadConfig                an option is out of range or contradicts another
│   ├── BadRequest               the request cannot be served as written
│   │   ├── PromptTooLong        it leaves no room in the context for an answer
│   │   └── UnknownPrevious      what it goes on from is not kept here
│   ├── BodyTooLarge       413   an HTTP body that nobody will read
│   ├── Conflict           409   the Idempotency-Key is another request's
│   ├── BadCheckpoint            the file is not what it claims to be
│   ├── Unauthorized       401   no API key, or one that is not known here
│   ├── Forbidden          403   from elsewhere, where only this machine may ask
│   ├── NotFetched               a model could not be brought here
│   └── UnknownName        404   no such format, command, request
│       └── UnknownModel         no such model on this server
├── CapacityError          503   nothing is wrong, there is no room now
│   ├── OutOfPages               the KV pages are all held
│   ├── QueueFull          429   too many requests run or wait already
│   ├── RateLimited        429   the API key has asked for all it may, for now
│   ├── Stopping                 the server ends before the answer does
│   └── RunsElsewhere      409   another process answers under the Idempotency-Key
├── BadState                     the file of what a server keeps cannot be used
├── TimedOut               504   the request took longer than it said it may
└── StepFailed             500   the engine could not compute a step
"""

from collections.abc import Sequence


class OctavoError(Exception):
    """`field` of the request that it is about, in the words of whoever sent it; None: all of it."""

    status = 500
    field: str | None = None


class UsageError(OctavoError):
    status = 400


class BadConfig(UsageError):
    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option


class BadRequest(UsageError):
    """`field` is the one to change; None: the body as a whole."""

    def __init__(self, problem: str, field: str | None = None) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.problem, self.field = problem, field


class PromptTooLong(BadRequest):
    def __init__(
        self, num_tokens: int, max_context: int, field: str, num_of_tools: int = 0
    ) -> None:
        among = f", {num_of_tools} of them for tools," if num_of_tools else ""
        super().__init__(
            f"{num_tokens} tokens{among} and one to answer exceed the maximum context length of "
            f"{max_context} tokens: shorten it",
            field,
        )


class UnknownPrevious(BadRequest):
    def __init__(self, id: str) -> None:
        super().__init__(
            f"no response {id[:100]!r} is kept here, nor all that it goes on from: "
            "send the whole conversation instead",
            "previous_response_id",
        )


class BodyTooLarge(UsageError):
    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes: send less")


class Conflict(UsageError):
    status = 409


class BadCheckpoint(UsageError):
    """`offset` is the byte of the file at which reading went wrong, where there is one."""

    def __init__(self, problem: str, offset: int | None = None) -> None:
        super().__init__(problem if offset is None else f"{problem} (at byte {offset})")
        self.offset = offset


class Unauthorized(UsageError):
    status = 401


class Forbidden(UsageError):
    status = 403


class NotFetched(UsageError):
    pass


class UnknownName(UsageError):
    status = 404

    def __init__(self, folder: str, name: str, close: Sequence[str]) -> None:
        hint = f"; did you mean {close[0]!r}?" if close else ""
        super().__init__(f"{folder} has no {name!r}{hint}")


class UnknownModel(UnknownName):
    field = "model"

    def __init__(self, name: str, served: str) -> None:
        super().__init__("this server", name, close=[served])


class CapacityError(OctavoError):
    """`retry_after`: in how many seconds there should be room, where that can be told."""

    status = 503

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class OutOfPages(CapacityError):
    def __init__(self, wanted: int, free: int) -> None:
        super().__init__(f"wanted {wanted} KV pages, {free} are free")


class QueueFull(CapacityError):
    status = 429

    def __init__(
        self, held: int, wanted: int, limit: int, retry_after: float | None = None
    ) -> None:
        super().__init__(
            f"{held} requests run or wait already, {wanted} more would be over the limit of "
            f"{limit}: try again later",
            retry_after,
        )


class RateLimited(CapacityError):
    status = 429

    def __init__(self, what: str, used: int, limit: int, retry_after: float) -> None:
        super().__init__(
            f"the key has {used} of its {limit} {what} in use, and this one does not fit beside "
            f"them: try again in {retry_after:.1f} s",
            retry_after,
        )


class Stopping(CapacityError):
    def __init__(self) -> None:
        # How long a restart takes is not told here: whoever comes too early doubles their wait.
        super().__init__("the server is stopping: ask again when it is back", retry_after=1.0)


class RunsElsewhere(CapacityError):
    status = 409

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: its request runs in another process that shares this one's state: "
            "ask again, it is answered here once it has ended there",
            retry_after=1.0,
        )


class BadState(OctavoError):
    pass


class TimedOut(OctavoError):
    status = 504
    field = "timeout"


class StepFailed(OctavoError):
    pass
