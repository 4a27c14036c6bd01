"""One kind of KV page per file: how the numbers of one token and head are kept.

A file offers  NUMBER            dtype of what lies in the page, one for each dim
               SCALE             dtype of the scale of a token and head; None: there is none
               encode(x)         [..., head_dim] float32 -> numbers, and scales [...] or None

What a number means is number * scale; octavo/kvcache/pool.py says where they lie, and each home
which kinds it can read.
"""
