"""Which tokens the next step computes. Pure Python: no tensors, no clock, no I/O."""
