"""Explaining: why a person got a message or did not, rule by rule, down to the rows of the files that it rests on.

Reads what the rooms before this one have written and asks their own functions: nothing is decided here, and nothing is
written but pages to read. ``subjects`` finds out who is meant, ``facts`` reads what is known of them, ``rules`` asks the
planner's rules in its order, ``occasions`` what set a campaign off, ``moved`` which features moved the scores, ``grounds`` what
else it rests on, ``outcome`` what became of it, ``raw_rows`` the rows of files. ``explanation`` puts it together out of what
``telling`` declares; ``page`` says how it looks, ``examples`` whom the UI shows.

Everything is as of the day that is asked about, but for what became of the message and what the outbox says, which is of now
and said to be. Private data is in none of it.
"""
