"""BG/NBD: people are gone by chance after a repeat order.

Fader, Hardie & Lee (2005), "Counting your customers" the easy way: an alternative to the Pareto/NBD model, Marketing Science 24.
"""

from shopauto_pipelines.predictions.btyd.geometric import GoneAfterOrder


class BGNBD(GoneAfterOrder):
    """Rates are gamma(``r_``, ``alpha_`` time), the chance to be gone after a repeat order beta(``a_``, ``b_``).

    A person without a repeat order is alive for certain. For rows, ``penalty`` and ``horizon`` see ``OrderTimes``.
    """

    _first = 0
