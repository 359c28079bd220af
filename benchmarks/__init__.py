"""Suites, exact commands and expected results. May import any public name; imported by ``cli`` only."""

if __name__ == "benchmarks":
    raise ImportError("import fedpref.benchmarks, not benchmarks")
