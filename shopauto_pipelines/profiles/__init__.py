"""Who the customers are: raw change logs become one trusted record per person.

The flow, table by table (``tables`` holds the contract, ``assets`` the Dagster face):

1. ``claims``: every field of every raw record, cleaned, with source, time, and the problem where it was not usable.
   Country, language and time zone that nobody declared are inferred. Written once per day.
2. ``identities``: which shop ids are one person, as of a day, by shared e-mail addresses and phone numbers.
3. ``attributes``: per person and field the value in force, declared before inferred, then the latest.
4. ``consent``: per person and channel the consent in force; an unsubscribe in a message counts as a change.
5. ``customers``: one row per person with all of it.

Cleaning rules are in ``cleaning``, merge rules in ``identity``. Everything but claims is recomputed for each as-of day from
what was known at its end, so a past day can be rebuilt at any time.
"""
