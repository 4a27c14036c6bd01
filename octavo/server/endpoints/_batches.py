"""How a batch is shown, in OpenAI's words."""

import msgspec

from octavo.server.batches import Batch
from octavo.types import Json

TIMES = (
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


def shown(batch: Batch) -> Json:
    problems = msgspec.json.decode(batch.problems) if batch.problems else None
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "completion_window": "24h",
        "status": batch.status,
        "input_file_id": batch.input_file_id,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "errors": {"object": "list", "data": problems} if problems else None,
        "metadata": msgspec.json.decode(batch.metadata) if batch.metadata else None,
        "request_counts": {
            "total": batch.num_lines,
            "completed": batch.num_completed,
            "failed": batch.num_failed,
        },
        "usage": {
            "input_tokens": batch.input_tokens,
            "input_tokens_details": {"cached_tokens": batch.cached_tokens},
            "output_tokens": batch.output_tokens,
            "output_tokens_details": {"reasoning_tokens": batch.reasoning_tokens},
            "total_tokens": batch.input_tokens + batch.output_tokens,
        },
        **{name: getattr(batch, name) for name in TIMES},
    }
