"""Jobs for the tests of the warm launcher; loaded by code servers and warm processes, by its path."""

import os
import time
from pathlib import Path

import dagster as dg

#: Set in the warm process by ``prepare``, and in the one that waits for its run by ``rehearse``.
PREPARED, REHEARSED = [], []


def prepare():
    PREPARED.append(os.getpid())


def rehearse():
    REHEARSED.append(os.getpid())


@dg.op(config_schema={"file": str})
def note(context):
    import warm_jobs

    told = [os.getpid(), os.getppid(), warm_jobs.PREPARED, warm_jobs.REHEARSED]
    Path(context.op_config["file"]).write_text(repr(told))


@dg.op
def die():
    os.kill(os.getpid(), 9)


@dg.op
def sleep():
    time.sleep(60)


@dg.job(executor_def=dg.in_process_executor)
def noting():
    note()


@dg.job(executor_def=dg.in_process_executor)
def cold():
    note()


@dg.job(executor_def=dg.in_process_executor)
def dying():
    die()


@dg.job(executor_def=dg.in_process_executor)
def sleeping():
    sleep()


defs = dg.Definitions(jobs=[noting, cold, dying, sleeping])
