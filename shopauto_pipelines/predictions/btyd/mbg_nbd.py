"""MBG/NBD: people are gone by chance after any order, also the first.

Batislam, Denizel & Filiztekin (2007), Empirical validation and comparison of models for customer base analysis, International
Journal of Research in Marketing 24.
"""

from shopauto_pipelines.predictions.btyd.geometric import GoneAfterOrder


class MBGNBD(GoneAfterOrder):
    """Rates are gamma(``r_``, ``alpha_`` time), the chance to be gone after an order beta(``a_``, ``b_``).

    For rows, ``penalty`` and ``horizon`` see ``OrderTimes``.
    """

    _first = 1
