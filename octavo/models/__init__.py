"""One architecture per file, named as config.json's `model_type` names it.

A file offers  Config    the numbers of the architecture, read from a checkpoint's metadata
               Model     its weights and `forward(ops)`
               tiny()    a random two-layer Config, for the contract test
"""
