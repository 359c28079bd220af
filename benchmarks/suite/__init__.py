"""The benchmark suites: declared as data in ``benchmarks/suites``, run as federations, shown as tables.

``declared`` reads a suite and ``keys`` checks its values; ``job`` is one of its runs, ``plan`` lists them,
``schedule`` makes those that are missing, ``choice`` chooses options, ``run`` goes all the way. ``results``
reads the runs, of which ``metrics`` are told; ``claims`` says what came out as claimed, ``reading`` puts a
table into a sentence, ``show`` and ``page`` show it all, ``expected`` compares it with what is kept.
"""
