"""Other engines to measure beside ours, one per file, named as the package that brings them.

A file offers  find()                a word on the version found; raises ImportError, in a sentence
               WAYS                  settings worth trying: the fastest is the one that is told
               Peer(path, threads=, sequences=, tokens=, **way)
                                     opens a GGUF file, with room for `tokens` of each sequence
               .prompt(tokens)       seconds to compute one prompt
               .generate(sequences, context, steps)
                                     seconds of `steps` steps of sequences that hold `context` each
               .close()

A peer is timed at its best: forward passes alone, no tokenizing and no sampling. It runs in a
process of its own, under any interpreter that has the package (_child.py), so these files import
the standard library and each other, nothing else.
"""
