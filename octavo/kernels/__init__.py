"""One op, one name, several homes.

ops.py        the contract, as a Protocol
reference.py  what each op means: NumPy, slow, obvious, the oracle of every kernel test
cpu.py        records a model once and replays it in C++ (cpp/)

A home is a module of this folder, so choosing a device is choosing a module.
"""
