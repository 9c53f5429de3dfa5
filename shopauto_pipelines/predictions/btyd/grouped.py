"""People with equal histories are one row with a count: what the models are fitted on, and how they are scored quickly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

#: Rows that are computed at once: their numbers stay in the processor's cache.
CHUNK = 2_048
#: Groups that a model is fitted on, at most: beyond, columns are binned.
GROUPS = 50_000
_FINEST, _COARSEST = 512, 8


def group(people: Numbers, weights: Numbers | None = None) -> tuple[Numbers, Numbers]:
    """Return the distinct rows of ``people``, sorted, and the sum of ``weights`` (default: 1 a person) of each, above 0."""
    kinds, kind = distinct(people)
    counts = np.bincount(kind, weights=weights, minlength=len(kinds)).astype(float)
    return kinds[counts > 0], counts[counts > 0]


def coarsen(groups: Numbers, counts: Numbers, limit: int = GROUPS) -> tuple[Numbers, Numbers]:
    """Return at most about ``limit`` groups for ``groups`` from ``group``: all columns but the first are put into bins.

    Bins are as fine as the limit allows and equally wide on the scale of √t, since likelihoods change fastest near zero. A bin
    stands at the weighted mean of its members, so that the first-order error of any smooth function is zero. With 450,000
    groups of a million people over two years, the parameters of the BG/NBD found on 50,000 bins lose .02 of log-likelihood:
    a fifth of a standard error.
    """
    if len(groups) <= limit:
        return groups, counts
    roots = np.sqrt(np.maximum(groups[:, 1:].T, 0))
    roots /= max(roots.max(), 1e-300)
    kept = _levels(groups[:, 0])[0]
    bins = max(int(_FINEST * (limit / len(groups)) ** 0.6), _COARSEST)
    while (found := _count(codes := _bins(kept, roots, bins))) > limit and bins > _COARSEST:
        bins = max(int(bins * min(0.95, (limit / found) ** 0.8)), _COARSEST)
    first, place = _places(codes)
    sums = np.bincount(place, weights=counts).astype(float)
    means = [np.bincount(place, weights=counts * column) / sums for column in groups.T[1:]]
    return np.stack([groups[first, 0], *means], axis=1), sums


def distinct(rows: Numbers) -> tuple[Numbers, NDArray[np.intp]]:
    """Return the distinct rows, sorted by the first column, then the second, …, and for each row its place among them.

    The same as ``numpy.unique(rows, axis=0, return_inverse=True)`` in a tenth of the time.
    """
    first, place = _places(_codes(rows))
    return rows[first], place


def per_kind(function: Callable[..., Numbers], *columns: Numbers) -> Numbers:
    """Return ``function(*columns)``, a function of each row by itself, computed once for equal rows and in bounded memory."""
    kinds, kind = distinct(np.stack(columns, axis=1))
    return in_chunks(function, *kinds.T)[kind]


def total_of(values: Numbers, counts: Numbers) -> NDArray[np.float64]:
    """Return the sum of ``values`` (…, n) × ``counts``: not ``@``, whose last bits depend on the number of threads."""
    return np.asarray((values * counts).sum(axis=-1))


def in_chunks(function: Callable[..., Numbers], *columns: Numbers) -> Numbers:
    """Return ``function(*columns)``, a function of each row by itself, in bounded memory."""
    starts = range(0, max(len(columns[0]), 1), CHUNK)
    return np.concatenate([function(*(column[start : start + CHUNK] for column in columns)) for start in starts])


def _codes(rows: Numbers) -> NDArray[np.integer]:
    """A whole number for each row, in the order of the rows and equal for equal ones."""
    code, size = np.zeros(len(rows), dtype=np.int64), 1
    for column in rows.T:
        level, levels = _levels(column)
        if size > 2**62 // max(levels, 1):
            code = np.unique(code, return_inverse=True)[1]
            size = int(code.max(initial=0)) + 1
        code, size = code * levels + level, size * levels
    return code.astype(np.int32) if size < 2**31 else code


def _places(codes: NDArray[np.integer]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each distinct code, in order, the index of one that has it; and for each code its place among the distinct ones."""
    order = np.argsort(codes)
    ordered = codes[order]
    changes = np.ones(len(codes), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=changes[1:])
    place = np.empty(len(codes), dtype=np.intp)
    place[order] = np.cumsum(changes) - 1
    return order[changes], place


def _count(codes: NDArray[np.integer]) -> int:
    """How many codes are distinct."""
    ordered = np.sort(codes)
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + min(len(codes), 1)


def _bins(kept: NDArray[np.int64], shares: Numbers, bins: int) -> NDArray[np.int64]:
    """Codes of rows with the same ``kept`` and the same of ``bins`` for each row of ``shares``, numbers from 0 to 1."""
    codes = kept
    for share in shares:
        codes = codes * (bins + 1) + (share * bins).astype(np.int64)
    return codes


def _levels(column: Numbers) -> tuple[NDArray[np.int64], int]:
    """Whole numbers in the order of the column's values, and a bound above them."""
    column = np.ascontiguousarray(column)
    if len(column) and column.min() >= 0 and column.max() < 2**20:
        whole = column.astype(np.int64)
        if np.array_equal(whole, column):
            return whole, int(whole.max()) + 1
    found, place = np.unique(column, return_inverse=True)
    return place.astype(np.int64), len(found)
