"""The ground floor: lake, engine, PostgreSQL, clock, settings, and (in ``platform.dagster``) the shared Dagster parts.

Imports no other room. What is here is used by several rooms and knows nothing about marketing.
"""
