"""Server strategies, one algorithm a file.

May import ``fedpref.types``, ``errors``, ``seeds`` and ``maths``; never torch, Ray, Hydra, Flower or
the simulation, so that an algorithm reads like its paper and is tested in milliseconds.
"""

if __name__ == "strategies":
    raise ImportError("import fedpref.strategies, not strategies: two copies of a class would not be equal")
