"""How a file is shown, in OpenAI's words."""

from octavo.server.files import File
from octavo.types import Json


def shown(file: File) -> Json:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.num_bytes,
        "created_at": file.created,
        "expires_at": file.expires,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }
