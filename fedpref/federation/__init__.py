"""The one loop: rounds, evaluation, checkpoints, resume.

May import ``simulation``, ``flower``, ``evaluation``, ``report`` and what they stand on; knows
nothing of Hydra. Whatever executes the clients and whatever the strategy, this loop runs it.
"""
