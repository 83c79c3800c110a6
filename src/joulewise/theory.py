"""The theory of selection by value per joule, as code: laws of magnitudes, what rules keep under them, and bounds.

    fit, errors                what magnitudes look like, and how far each law is off
    predict, saving            what a rule keeps under a budget, and what it saves over another one
    TwoPrices                  two price classes in closed form, and the limits
    deviation                  how far energy strays from its expectation
    plan                       every setting of a Compressor beside what it would take
    predict_run, convergence   whole runs with error feedback
    half_approximation         at least half of the optimum, also where one coordinate is large
    guaranteed_delta           the contraction that a rule and a budget promise

Statements, assumptions and proofs are in ``docs/theory.md``. Laws other than quantiles and Laplace, and closed forms,
need scipy: ``pip install "joulewise[theory]"``.
"""

from joulewise.advantage import Saving, TwoPrices, saving
from joulewise.certificate import guaranteed_delta
from joulewise.concentration import Deviation, deviation, variance_interval
from joulewise.expectation import Kept, Predicted, predict
from joulewise.halves import half_approximation
from joulewise.horizon import Convergence, Run, convergence, longest_step, predict_run, waits
from joulewise.lawfit import Error, Fit, LawName, errors, fit
from joulewise.laws import Law, Quantiles
from joulewise.plan import Choice, Plan, plan
from joulewise.scaled_laws import LAWS, GeneralisedNormal, Laplace, Normal, StudentT

__all__ = [
    "LAWS",
    "Choice",
    "Convergence",
    "Deviation",
    "Error",
    "Fit",
    "GeneralisedNormal",
    "Kept",
    "Laplace",
    "Law",
    "LawName",
    "Normal",
    "Plan",
    "Predicted",
    "Quantiles",
    "Run",
    "Saving",
    "StudentT",
    "TwoPrices",
    "convergence",
    "deviation",
    "errors",
    "fit",
    "guaranteed_delta",
    "half_approximation",
    "longest_step",
    "plan",
    "predict",
    "predict_run",
    "saving",
    "variance_interval",
    "waits",
]
