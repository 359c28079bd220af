"""Losses on the margin and the batches they are taken over: pure functions, nothing else.

May import torch, NumPy, ``fedpref.types`` and ``errors``. Every objective is a function of the margin
``r(chosen) - r(rejected)``, so that one client loop serves every model that has a margin. Nothing is
imported here, so that NumPy rules do not pay for torch.
"""
