"""The outbox: everything that leaves, leaves once.

``campaigns/<name>/audience`` says who is to get what; this room sends it. The two are apart on purpose: an audience can
be computed again for any day, a message cannot be taken back.

- ``ledger``      one row per message in PostgreSQL, unique on campaign, step, customer and occasion:
  ``planned → reserved → sent | failed | unknown``, or ``planned → suppressed``. Every change is kept.
- ``eligibility`` what a reservation asks once more of each message: may it still leave?
- ``consents``    what people chose, suppressed addresses, exits; ``suppression_lists`` reads and writes them as CSV.
- ``controls``    the kill switch and the pause of a campaign: from its commit on nothing is reserved.
- ``breakers``    what pauses a campaign by itself: complaints, bounces; and the first stage of a large one.
- ``schema``      the tables of all this in PostgreSQL.
- ``windows``     which day may still be sent for. A backfill never sends.
- ``dispatch``    a campaign's day from end to end: audience → ledger, then ``sending``, then what left → lake.
- ``sending``     ledger → rendered message → channel → ledger, in bounded batches; several at once are safe, and so is
  killing one at any point.
- ``dispatchers`` the lives of dispatchers: who is alive, and what becomes of a dead one's reservations.
- ``people``      the shop ids that are one person: what counts for somebody is what went to all of them.
- ``granting``    offers that messages bring: their codes, and how many a person may have.
- ``links``       addresses as keyed hashes, signed unsubscribe links.
- ``channels``    the far side, behind one small interface: the local inbox (default); in live mode SendGrid or SMTP for
  e-mail, Twilio for SMS, or a signed webhook for both, as ``channels.choice`` reads it off the settings.
- ``inbox_page``  the page that shows the local inbox (``shopauto inbox``).
- ``preference_page``  the pages behind a message's links: unsubscribe, preferences. ``web`` is what all pages share.
- ``assets``      the Dagster face: ``outbox/<campaign>``, never automated; ``sensors`` sends the rest of roll-outs, off
  until it is switched on.

What the states promise: ``failed`` was surely not accepted and may be planned again by an operator; ``unknown`` may or
may not have left and is never sent again by itself. No address is stored in the ledger.
"""
