"""The collector's interface as OpenAPI 3.1: the models the requests are checked with, and what is answered."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from shopauto_pipelines.realtime.collector import models
from shopauto_pipelines.realtime.collector.shop_routes import MOST_ENTRIES

_REF = "#/components/schemas/"

_ANSWERS = {
    "200": "all that could be read is stored, durably",
    "400": "not JSON, or broke off",
    "401": "the key is wrong or missing, or the signature is",
    "408": "not here after 30 seconds",
    "413": f"too large, or more than {MOST_ENTRIES:,} entries",
    "415": "a compressed body",
    "422": "no entry could be read; the reasons are in `refused`",
    "429": "too fast, or too much is waiting to be stored; come again after `Retry-After` seconds",
    "503": "cannot be stored now: send it again",
}


@lru_cache
def document() -> dict[str, Any]:
    """The whole description."""
    schemas: dict[str, Any] = {
        "Stored": {
            "type": "object",
            "required": ["stored", "repeated", "refused"],
            "properties": {
                "stored": {"type": "integer", "description": "entries that were new"},
                "repeated": {"type": "integer", "description": "entries that had come before: nothing was done"},
                "refused": {
                    "type": "array",
                    "description": "entries that were not taken; they spoil no others",
                    "items": {
                        "type": "object",
                        "required": ["index", "reason"],
                        "properties": {"index": {"type": "integer"}, "reason": {"type": "string"}},
                    },
                },
            },
        },
        "Refused": {"type": "object", "required": ["refused"], "properties": {"refused": {"type": "string"}}},
    }
    for name, adapter in (
        ("Event", models.EVENT),
        ("Order", models.ORDER),
        ("Ticket", models.TICKET),
        ("Form", models.FORM),
    ):
        schemas |= _schemas(name, adapter)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Collector",
            "version": "1",
            "description": (
                "Takes in what happens in a shop. An answer of 2xx means that it is stored durably; what comes twice is "
                "stored once, by its id. Times are ISO 8601, UTC where no zone is named; left out, they are now. What is "
                "more than 5 minutes ahead or 40 days old is refused."
            ),
        },
        "paths": {
            "/events": {
                "post": _entries(
                    "Event",
                    "What visitors do",
                    "One event or a list of them. From the shop's pages, `shopauto.js` sends them; `text/plain` is read as JSON "
                    "too, as `navigator.sendBeacon` needs it. A `login` says whose browser it is: by `shop_customer_id` with "
                    "its `signature`, or by an `email` the visitor typed. `ticket_opened` and `ticket_closed` are for servers.",
                    example=_EVENT,
                )
            },
            "/orders": {
                "post": _entries(
                    "Order",
                    "Paid orders",
                    "From the shop's servers. An order that names its `cart_id` takes the cart: no reminder leaves after it.",
                    example=_ORDER,
                    servers_only=True,
                )
            },
            "/tickets": {
                "post": _entries(
                    "Ticket",
                    "Questions to the shop's service",
                    "From the help desk. Who waits for an answer gets no reminders and no promotions.",
                    example={"ticket_id": "T-2041", "shop_customer_id": "c02998"},
                    servers_only=True,
                )
            },
            "/forms": {
                "post": _entries(
                    "Form",
                    "Forms filled in",
                    "With `consent` it is a consent to marketing too, of the customer, or of whoever has the `email`.",
                    example=_FORM,
                )
            },
            "/offer": {"get": _OFFER},
            "/webhooks/shopify": {
                "post": _webhook(
                    "Shopify",
                    "orders/create, orders/paid, checkouts/create, checkouts/update, carts/create, carts/update, "
                    "customers/create, customers/update, refunds/create",
                    "X-Shopify-Hmac-Sha256",
                    "X-Shopify-Topic",
                )
            },
            "/webhooks/woocommerce": {
                "post": _webhook(
                    "WooCommerce",
                    "order.created, order.updated, order.restored, customer.created, customer.updated",
                    "X-WC-Webhook-Signature",
                    "X-WC-Webhook-Topic",
                )
            },
            "/webhooks/sendgrid": {
                "post": _webhook(
                    "SendGrid",
                    "all deliverability and engagement events",
                    "X-Twilio-Email-Event-Webhook-Signature",
                    "X-Twilio-Email-Event-Webhook-Timestamp",
                    "when it was signed",
                    body={"type": "array", "items": {"type": "object"}},
                )
            },
            "/webhooks/twilio": {"post": _twilio("twilio_reply", "Answers to SMS", "Incoming messages of the sender.")},
            "/webhooks/twilio/{message}": {
                "post": _twilio(
                    "twilio_status",
                    "What became of an SMS",
                    "Named in every SMS that is sent.",
                    _path("message", "number of the message", "^[1-9][0-9]{0,17}$"),
                )
            },
            "/u/{token}": {
                "get": _link("unsubscribe_page", "Asks whether to unsubscribe", {"200": "the page"}),
                "post": _link("unsubscribe", "Unsubscribes, with one click (RFC 8058)", {"200": "done"}),
            },
            "/p/{token}": {
                "get": _link("preferences_page", "The preference page", {"200": "the page"}),
                "post": _link(
                    "preferences", "Saves what was chosen", {"303": "saved, to the page", "400": "not the page's form"}
                ),
            },
            "/health": {
                "get": {
                    "operationId": "health",
                    "summary": "Whether events would be stored now",
                    "responses": {"200": {"description": "yes"}, "503": {"description": "no"}},
                }
            },
        },
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "SHOPAUTO_COLLECTOR_KEY, for the shop's servers",
                }
            },
        },
    }


_EVENT = {
    "event_id": "5f0c9a2e-add",
    "type": "add_to_cart",
    "anonymous_id": "b-7d1f",
    "cart_id": "cart-881",
    "product_id": "P101",
    "quantity": 1,
}
_ORDER = {
    "order_id": "10042",
    "shop_customer_id": "c02998",
    "cart_id": "cart-881",
    "currency": "EUR",
    "total_cents": 2180,
    "shipping_cents": 490,
    "lines": [{"product_id": "P101", "quantity": 1, "unit_price_cents": 1690, "amount_cents": 1690}],
}
_FORM = {
    "submission_id": "5f0c9a2e-news",
    "form": "newsletter",
    "email": "ana@example.com",
    "anonymous_id": "b-7d1f",
    "consent": {"channel": "email", "wording": "Yes, send me news and offers."},
}
_ID = {"type": "string", "pattern": models.ID_PATTERN}
_OFFER: dict[str, Any] = {
    "operationId": "offer",
    "summary": "What the visitor is offered",
    "description": (
        "For lapsed customers only, and only where the shop has signed who the visitor is. `offer` is null for everybody else. "
        "A browser asks with `anonymous_id`, a server with `shop_customer_id` and its key."
    ),
    "parameters": [
        {"name": "anonymous_id", "in": "query", "schema": _ID, "description": "the browser"},
        {
            "name": "shop_customer_id",
            "in": "query",
            "schema": {"type": "string", "minLength": 1, "maxLength": 128},
            "description": "the customer; for servers",
        },
    ],
    "security": [{}, {"key": []}],
    "responses": {
        "200": {
            "description": "decided",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["offer"],
                        "properties": {"offer": {"type": ["object", "null"]}, "reason": {"type": ["string", "null"]}},
                    }
                }
            },
        },
        **{
            status: {"description": text}
            for status, text in {
                "401": _ANSWERS["401"],
                "422": "neither or both are given, or not of their form",
                "429": _ANSWERS["429"],
                "503": "cannot be decided now",
            }.items()
        },
    },
}


def _entries(
    name: str, summary: str, description: str, *, example: dict[str, Any], servers_only: bool = False
) -> dict[str, Any]:
    one: dict[str, Any] = {"$ref": _REF + name}
    schema = {"oneOf": [one, {"type": "array", "maxItems": MOST_ENTRIES, "items": one}]}
    content: dict[str, Any] = {"application/json": {"schema": schema, "example": example}}
    if not servers_only:
        content["text/plain"] = {"schema": schema}
    return {
        "operationId": name.lower(),
        "summary": summary,
        "description": description,
        "security": [{"key": []}] if servers_only else [{}, {"key": []}],
        "requestBody": {"required": True, "content": content},
        "responses": _responses(_ANSWERS, stored=True),
    }


def _webhook(
    shop: str,
    topics: str,
    signature: str,
    other: str,
    what: str = "what it is about",
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    answers = {status: _ANSWERS[status] for status in ("200", "400", "401", "408", "413", "415", "429", "503")}
    return {
        "operationId": f"webhook_{shop.lower()}",
        "summary": f"{shop}'s webhooks",
        "description": f"Give this address to {shop} for: {topics}. Signed over the raw bytes; others are of no use.",
        "parameters": [
            {
                "name": header,
                "in": "header",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
                "description": text,
            }
            for header, text in ((signature, "their signature"), (other, what))
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body or {"type": "object"}}}},
        "responses": _responses(answers),
    }


def _twilio(operation: str, summary: str, description: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    answers = {status: _ANSWERS[status] for status in ("400", "401", "408", "413", "415", "429", "503")}
    signature = {"name": "X-Twilio-Signature", "in": "header", "required": True, "schema": {"type": "string"}}
    form = {"type": "object", "additionalProperties": {"type": "string"}}
    return {
        "operationId": operation,
        "summary": summary,
        "description": description,
        "parameters": [*parameters, signature | {"description": "their signature"}],
        "requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": form}}},
        "responses": {
            "200": {"description": "done, or nothing to do", "content": {"text/xml": {}}},
            "404": {"description": "not the number of a message"},
            **_responses(answers),
        },
    }


def _link(operation: str, summary: str, answers: dict[str, str]) -> dict[str, Any]:
    """A page behind a link of a message."""
    answers = answers | {"404": "not a link of ours", "503": "cannot be done now"}
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": [_path("token", "names a message, is signed, and says nothing", "^[A-Za-z0-9_-]{1,200}$")],
        "responses": {status: {"description": text} for status, text in answers.items()},
    }


def _path(name: str, description: str, pattern: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": pattern}
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": description}


def _responses(answers: dict[str, str], *, stored: bool = False) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, text in answers.items():
        if status in ("200", "422"):
            schema: dict[str, Any] = {"$ref": _REF + "Stored"} if stored else {"type": "object"}
        else:
            schema = {"$ref": _REF + "Refused"}
        responses[status] = {"description": text, "content": {"application/json": {"schema": schema}}}
        if status == "429":
            responses[status]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    return responses


def _schemas(name: str, adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """The schema of a model and of what it refers to, by name."""
    schema = adapter.json_schema(ref_template=_REF + "{model}")
    inner = schema.pop("$defs", {})
    return {key: _untitled(part) for key, part in {**inner, name: schema}.items()}


def _untitled(schema: Any) -> Any:
    """Without the titles that only repeat names."""
    if isinstance(schema, dict):
        return {key: _untitled(part) for key, part in schema.items() if not (key == "title" and isinstance(part, str))}
    return [_untitled(part) for part in schema] if isinstance(schema, list) else schema
