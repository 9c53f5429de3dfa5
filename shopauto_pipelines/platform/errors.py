"""Errors whose text is written for users: what is wrong, where, and what to do. Anything else that is raised is a bug."""


class ShopAutoError(Exception):
    """Base of every expected error; the command line prints its text, without a traceback."""
