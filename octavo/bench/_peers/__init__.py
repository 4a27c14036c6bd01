"""Other engines to measure beside ours, one per file, named as the package that brings them.

A file offers  Peer(path, threads=, room=, batch=)   opens a GGUF file; `room` tokens of KV in all
               .prompt(num_tokens)                   seconds to compute one prompt
               .generate(batch, context, steps)      seconds of `steps` steps of `batch` sequences
                                                     that hold `context` tokens each

A peer is timed at its best: forward passes alone, no tokenizing and no sampling.
"""
