"""The collector: the web service that the outside world talks to (``shopauto collect``).

- ``service``          all routes.
- ``intake``           what all requests have in common: who asks, bounded memory, rates, stored before answered.
- ``shop_routes``      the shop's side: events, orders, tickets, forms, the shops' webhooks.
- ``landing``          landing pages: shown in the reader's language, sent in without JavaScript.
- ``models``           what a request may say, made from the raw tables; ``openapi`` describes it, ``pages`` show it.
- ``reading``          entries of requests → rows and logins. Touches no database.
- ``shopify``          their webhooks, likewise; ``woocommerce`` too. ``shop_words`` is what both have in common.
- ``writer``           group commit: what several requests brought, in one transaction.
- ``sendgrid_events``  the event webhook of SendGrid: is it theirs, and what does it say. Touches no database.
- ``twilio_events``    the webhooks of Twilio, likewise; ``twilio_routes`` are their routes.
- ``sms_replies``      an answer to an SMS that ends the messages.
- ``events``           what both are read into.
- ``recording``        events → ``shopauto.provider_events`` and what follows from them, in one transaction.
"""
