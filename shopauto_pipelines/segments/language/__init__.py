"""The language of conditions on a person: from its text to an Ibis expression.

In the order of the way: ``syntax`` makes a tree of the text, ``names`` knows what its names and calls stand for,
``translation`` turns its nodes into values. The condition as others use it is ``segments.predicate``.
"""
