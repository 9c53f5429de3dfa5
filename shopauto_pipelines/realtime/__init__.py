"""Real time: what reaches us from outside within seconds, durable before it is answered.

- ``collector``        the web service (``shopauto collect``): the providers' events, unsubscribe links, preferences.
- ``intake``           what all webhooks have in common: bounded bodies, stored before answered, numbers only in the log.
- ``sendgrid_events``  the event webhook of SendGrid: is it theirs, and what does it say. Touches no database.
- ``twilio_events``    the webhooks of Twilio, likewise; ``twilio_routes`` is their side of the collector.
- ``sms_replies``      an answer to an SMS that ends the messages.
- ``events``           what both are read into.
- ``recording``        events → ``shopauto.provider_events`` and what follows from them, in one transaction.
- ``closed_days``      what a day that is over holds → the lake, for features, planner and reports.
- ``assets``           the Dagster face: ``realtime/provider_events``, which runs before the raw tables.

Events repeat and come in any order: what is stored is the same whatever order they came in.
"""
