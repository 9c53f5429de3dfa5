"""ShopAuto Pipelines: marketing automation for online shops as a declarative Dagster project.

Rooms, in the order the data walks through them: ``sources`` → ``profiles`` → ``features`` → ``predictions`` →
``segments`` → ``campaigns`` → ``outbox``. ``platform`` is the ground floor under all of them, ``orchestration`` says
when they run, ``cli`` is the command line, ``defs`` is the playbook: what a shop declares.
"""

__version__ = "0.1.0"
