"""Buy-till-you-die models: how often people order, whether they are gone, what an order is worth; learned without outcomes.

A person orders at a rate of their own until, unseen, they are gone. Three numbers of a history are enough::

    first order                        last order               today
        |------|----------|---------------|- - - - - - - - - - - -|- - - - - - - - - - - -|
        0      order    order            t_x                      T        horizon       T+h
        <---------- x repeat orders ------>       silence: chance, or gone?

==============================  ======================  ==================================  =====================
module                          gaps between orders     people are gone                     source
==============================  ======================  ==================================  =====================
:mod:`~.bg_nbd`                 exponential             after a repeat order, by chance     Fader, Hardie & Lee 2005
:mod:`~.pareto_nbd`             exponential             at any time                         Schmittlein et al. 1987
:mod:`~.gamma_gamma`            values of the orders, given their number                    Fader & Hardie 2013
==============================  ======================  ==================================  =====================

All are scikit-learn estimators (clone, get_params, sample_weight). The first two share one shape, :mod:`~.base`: X has a row
a person and the columns x, t_x, T, in any unit of time, which is then the unit of ``alpha_`` and of every horizon. They are
fitted on groups of equal rows (:mod:`~.grouped`), so a million people cost little more than ten thousand.

Whether somebody will order is ``probability_of_order(X, horizon)``, never ``probability_alive(X)``: under the BG/NBD a person
with one order is alive for certain, however long ago that was.
"""
