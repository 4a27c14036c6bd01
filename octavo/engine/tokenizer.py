"""A model's tokenizer by the model's name, without the model."""

from os import PathLike

from octavo.errors import BadCheckpoint
from octavo.loader import hub, tokenizer
from octavo.loader.checkpoint import open_checkpoint


class Tokenizer(tokenizer.Tokenizer):
    def __init__(self, model: str | PathLike[str]) -> None:
        """`model` is a name or a path, also of a file that holds a vocabulary and no tensors.
        Raises NotFetched, BadCheckpoint, BadConfig."""
        checkpoint = open_checkpoint(hub.resolve(str(model)))
        if checkpoint.vocabulary is None:
            raise BadCheckpoint(f"{checkpoint.path} has no tokenizer: take a file that carries one")
        super().__init__(checkpoint.vocabulary, checkpoint.chat_template)
