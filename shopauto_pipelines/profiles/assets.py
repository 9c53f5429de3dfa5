"""The room's five assets."""

from shopauto_pipelines.platform.dagster.assets import lake_asset
from shopauto_pipelines.platform.dagster.resources import SettingsResource
from shopauto_pipelines.profiles import claims as claiming
from shopauto_pipelines.profiles import consent as consenting
from shopauto_pipelines.profiles import customers as people
from shopauto_pipelines.profiles import identity, tables
from shopauto_pipelines.sources import tables as raw


@lake_asset(tables.CLAIMS, ins={"customers": raw.CUSTOMERS, "orders": raw.ORDERS})
def claims(customers, orders, settings: SettingsResource):
    """Cleans each field of the days' records and infers country, language and time zone."""
    country, timezone = settings.settings.country, settings.settings.timezone
    return lambda start, end: claiming.claims(
        customers.between(start, end), orders.between(start, end), country, timezone
    )


@lake_asset(
    tables.IDENTITIES,
    ins={
        "customers": raw.CUSTOMERS,
        "orders": raw.ORDERS,
        "forms": raw.FORM_SUBMISSIONS,
        "claims": tables.CLAIMS,
    },
)
def identities(customers, orders, forms, claims):
    """Joins shop ids that share a valid e-mail or phone."""

    def persons(as_of):
        known = identity.identities(customers.until(as_of), orders.until(as_of), claims.until(as_of))
        return identity.with_forms(known, forms.until(as_of), claims.until(as_of))

    return persons


@lake_asset(tables.ATTRIBUTES, ins={"claims": tables.CLAIMS, "identities": tables.IDENTITIES})
def attributes(claims, identities):
    """Picks the value in force of each field."""
    return lambda as_of: people.attributes(claims.until(as_of), identities.on(as_of))


@lake_asset(
    tables.CONSENT,
    ins={
        "consents": raw.CONSENTS,
        "message_events": raw.MESSAGE_EVENTS,
        "topic_choices": raw.TOPIC_CHOICES,
        "claims": tables.CLAIMS,
        "attributes": tables.ATTRIBUTES,
        "identities": tables.IDENTITIES,
    },
)
def consent(consents, message_events, topic_choices, claims, attributes, identities):
    """Takes the latest change per person and channel, for the address in force."""
    return lambda as_of: consenting.consent(
        consents.until(as_of),
        message_events.until(as_of),
        topic_choices.until(as_of),
        claims.until(as_of),
        attributes.on(as_of),
        identities.on(as_of),
    )


@lake_asset(
    tables.CUSTOMERS,
    ins={"attributes": tables.ATTRIBUTES, "identities": tables.IDENTITIES, "consent": tables.CONSENT},
)
def customers(attributes, identities, consent):
    """One row per person."""
    return lambda as_of: people.customers(attributes.on(as_of), identities.on(as_of), consent.on(as_of))


#: In flow order.
ASSETS = [claims, identities, attributes, consent, customers]
