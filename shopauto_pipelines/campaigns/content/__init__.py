"""What a message says: MJML and Jinja templates to subject, HTML and text part. Not who gets it, nor sending it.

A message is written in three places, so that a translator never touches the layout and a designer never the words:

- ``<template>.mjml.j2`` and ``<template>.txt.j2`` beside the declaration, ``<template>.sms.j2`` for an SMS. Square brackets
  (``[% extends … %]``, ``[[ … ]]``) are resolved once, when the MJML is compiled; curly ones (``{{ … }}``) for every person,
  in a sandbox.
- ``texts/<language>.yaml``: ``step → name → words``; a template says ``{{ text.<name> }}``. The words may hold ``{{ … }}``
  themselves: ``{% if person.first_name %}Hello {{ person.first_name }}{% else %}Hello{% endif %}``.
- The folder above holds what campaigns share: ``layout.*.j2``, ``parts.*.j2``, and ``texts/<language>.yaml``: ``name → words``.

Templates know ``text`` (``{% if "more" in text %}`` asks whether a step has such words), ``person`` (``first_name``,
``last_name``, ``gender``, ``city``, ``country``, as in ``profiles/customers``), ``shop`` (``name``, ``url``, ``cart_url``,
``postal_address``), ``links`` (``unsubscribe``, ``preferences``), ``language`` and ``subject``, and

- ``products``, what the step's ``products`` chose: ``name``, ``category``, ``price`` written as the language does, ``url``
  and ``reason``, a few words or none;
- ``about``, the products that the trigger is about, with the same fields, and ``details``, what else it tells
  (:data:`DETAILS`; days written as the language does, none where the trigger does not tell it);
- ``cart``, what lies in a cart that was left: ``name``, ``pieces``, both as ``label`` (``2 × Lamp``), ``price``,
  ``category``; empty in other campaigns;
- ``offer``: ``kind`` (``percent`` or ``free_shipping``), ``percent``, ``code``, ``expires_on``; none where none was granted.

Anything else is an error: a message with a hole in it does not leave.
"""

from __future__ import annotations

from shopauto_pipelines.campaigns.content.checks import check_step
from shopauto_pipelines.campaigns.content.examples import EXAMPLE_LINKS, EXAMPLE_PERSON, example, previews
from shopauto_pipelines.campaigns.content.fault import ContentError
from shopauto_pipelines.campaigns.content.languages import FALLBACK_LANGUAGE, match_language, price
from shopauto_pipelines.campaigns.content.message import Rendered
from shopauto_pipelines.campaigns.content.rendering import DETAILS, REASONS, Renderer

__all__ = [
    "DETAILS",
    "EXAMPLE_LINKS",
    "EXAMPLE_PERSON",
    "FALLBACK_LANGUAGE",
    "REASONS",
    "ContentError",
    "Rendered",
    "Renderer",
    "check_step",
    "example",
    "match_language",
    "previews",
    "price",
]
