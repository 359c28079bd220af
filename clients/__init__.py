"""Local learning rules, one a file ("client" is the rule, not a machine).

May import torch, ``fedpref.types``, ``errors``, ``models`` and ``objectives``. A rule is a frozen
dataclass whose whole memory is its ClientState; it never mutates what it is given.
"""

if __name__ == "clients":
    raise ImportError("import fedpref.clients, not clients: two copies of a class would not be equal")
