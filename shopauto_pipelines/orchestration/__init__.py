"""When and how the rooms run: jobs and schedules.

One job, ``daily_refresh``, walks the whole house for a day (or a range of days in one run). ``load_history`` writes only
what is partitioned by the day things happened: raw logs and rollups, which every as-of day after them reads. What a room
computes belongs in the room.

``health`` says which days of which tables cannot stay, and why, by the order of tables that ``flow`` reads off the graph.
"""
