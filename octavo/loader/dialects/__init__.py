"""One file format of checkpoints per file: what it says, in Hugging Face's words.

A file offers  speaks(path)      whether the file is of this format, by its first bytes
               open_file(path)   a Checkpoint; raises BadCheckpoint
"""
