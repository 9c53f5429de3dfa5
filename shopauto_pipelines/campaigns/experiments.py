"""Who gets which variant of an experiment: drawn by a keyed hash of the person, so it is known before anything is sent.

Nobody's variant depends on the day, on other people or on what is sent to them; it changes with the experiment's name, its
variants' names and weights only. The audience keeps it beside each decision. What came of it is read elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from shopauto_pipelines.campaigns.holdout import PLACES, bound, derived_key, place


def experiment_key(hash_key: bytes, name: str) -> str:
    """Key of the experiment ``name``: its draw tells nothing of another's, nor of who is held out."""
    return derived_key(hash_key, f"experiment:{name}")


def variant_of(customer_id: str, key: str, weights: Mapping[str, int]) -> str:
    """The person's variant, of those with their ``weights``; the order in which these are named does not count."""
    found = place(customer_id, key)
    return next(name for name, end in ends(weights) if found < end)


def ends(weights: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Each variant, in the order of the alphabet, with the place at which its share ends."""
    total, so_far = sum(weights.values()), 0
    for name, weight in sorted(weights.items()):
        so_far += weight
        yield name, bound(so_far * PLACES // total)
