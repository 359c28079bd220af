"""Pure algebra: weights, combines, LoRA operators. Imports NumPy and ``types``, nothing else.

Every function takes values and returns values; sums run in the order of their arguments and in
float64, so that equal inputs give equal bits on every executor.
"""
