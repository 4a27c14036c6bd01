"""One weight format per file, named as GGUF names it.

A file offers  BLOCK, BYTES          weights and bytes of one block
               dequantize(packed)    what the bytes mean: [rows, bytes] -> float32 [rows, k]
               split(packed)         the same as integer codes and scales (_codes.py), for packing:
                                     views of `packed` but for small factors
               tiny()                a few rows of random blocks, for the contract test
Float formats have no codes: they offer no `split`.
"""
