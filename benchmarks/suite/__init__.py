"""The benchmark suites: declared as data in ``benchmarks/suites``, run as federations, shown as tables.

``declared`` reads a suite, ``job`` is one of its runs, ``schedule`` makes those that are missing, ``choice``
chooses options, ``table`` and ``page`` show what came out, ``expected`` compares it with what is kept.
"""
