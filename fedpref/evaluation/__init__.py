"""How good are the served models, for everybody and for those served worst?

This room imports types, errors and NumPy only: a metric is a pure function of margins, so that it can be
held against its definition. It alone may ask a population's hidden truth. ``metrics`` and ``groups`` have the
definitions, ``evaluate`` applies them to a strategy's state.
"""

from __future__ import annotations

from fedpref.evaluation.evaluate import Evaluation, UserScore, evaluate

__all__ = ["Evaluation", "UserScore", "evaluate"]
