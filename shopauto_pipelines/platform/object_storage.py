"""A lake in a bucket of S3, or of a server that speaks its language: ``s3://bucket/prefix``.

A partition is an object, replaced by one PUT, under the name its file has in a folder, with the same bytes. Beside it stands an
empty object whose name says when the partition was computed and when its rows changed, by the clock of who wrote them, and of
which version of the rows: the times of the store have seconds only, and one listing tells everything of a thousand objects.

Whoever reads gets a copy on this machine, named by the object's version. So a query never reads parts of two versions, what
was written here is not fetched again, and neither is what did not change.
"""

from __future__ import annotations

import asyncio
import fcntl
import filecmp
import hashlib
import json
import math
import os
import re
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.storage import FILE, STAGING, Outcome, Replaced, Stored, Times, staged_name, used

#: A part of a large object, in bytes: what is larger than two of them is sent, and fetched, in parts.
_PART = 16 * 1024 * 1024

#: Requests under way at once, and those of them that hold a whole file.
_AT_ONCE = 16
_PUTS_AT_ONCE = 8

#: Times that an answer which broke off is asked for again.
_TRIES = 3

#: A copy that nobody has used for so long is removed; one that was replaced, after an hour without use: its readers are done.
_UNUSED_SECONDS = 7 * 24 * 3600
_REPLACED_SECONDS = 3600

_LIBRARIES = {"aiobotocore", "aiohttp", "botocore", "fsspec", "s3fs", "urllib3"}

_COPIES = "_copies"
_MARKER = "_computed-"
_TOLD = re.compile(r"(\d+)-(\d+)-([0-9a-f]+)-([0-9a-f]+)")

#: Rights that a lake needs, as policies call them.
RIGHTS = "s3:ListBucket on the bucket, s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on its objects"

_NOT_THERE = ("NoSuchKey", "404")
_NOT_THIS_VERSION = ("PreconditionFailed", "412", *_NOT_THERE)
_UNKNOWN_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired")
_OTHER_REGION = ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")

#: State of a file that was never mirrored.
_UNKNOWN = ("", -1, -1)

_T = TypeVar("_T")


class ObjectStorageError(ShopAutoError):
    """A bucket cannot be used; the text says which, what was tried, and what to do, and never holds a key."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing tells of it. ``markers``: names of what stands beside it to tell its times."""

    name: str
    size: int
    etag: str
    times: Times
    markers: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Name of the folder it stands in."""
        return self.name.rsplit("/", 2)[-2]

    @property
    def version(self) -> tuple[int | str, ...]:
        """Size and entity tag."""
        return self.size, self.etag


class ObjectStorage:
    """Objects under ``place``, ``s3://bucket/prefix``; ``root`` holds what this machine has of them.

    Keys, region and endpoint are those of the environment, as every program for S3 reads them; ``endpoint`` goes before. What
    others change may be seen by up to ``fresh_for`` seconds later, so that a run need not list a table for each of its readers.
    """

    def __init__(self, place: str, root: Path, endpoint: str | None = None, fresh_for: float = 0) -> None:
        self.place = place.rstrip("/")
        self._bucket, _, prefix = self.place.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint = endpoint
        self._fresh_for = fresh_for
        self.root = Path(root)

    def prepare(self) -> None:
        """The staging folder, and that of copies, from which the unused ones go once a day."""
        (self.root / STAGING).mkdir(parents=True, exist_ok=True)
        self._sweep()

    def days(self, table: str) -> list[str]:
        """One listing of the table."""
        return list(self.partitions(table))

    def partitions(self, table: str) -> dict[str, StoredObject]:
        """One listing of the table: a request per 500 partitions."""
        return self._known.table(table, self._fresh_for, lambda: _by_folder(self._listed(f"{table}/")))

    def partition(self, table: str, folder: str) -> StoredObject | None:
        """One request."""

        def look() -> StoredObject | None:
            return _by_folder(self._listed(f"{table}/{folder}/")).get(folder)

        return self._known.partition(table, folder, self._fresh_for, look)

    def times(self, tables: Sequence[str]) -> dict[str, dict[str, Times]]:
        """One listing of all that the tables' names begin with: a request per 500 partitions."""
        by_table: dict[str, list[StoredObject]] = {table: [] for table in tables}
        for item in self._listed(_common([f"{table}/" for table in tables])):
            table = item.name.rsplit("/", 2)[0]
            if table in by_table:
                by_table[table].append(item)
        return {
            table: {folder: item.times for folder, item in _by_folder(found).items()}
            for table, found in by_table.items()
        }

    def local(self, files: Sequence[Stored]) -> list[Path]:
        """Copies, fetched where this machine has none, many at once."""
        objects = [file for file in files if isinstance(file, StoredObject)]
        copies = [self._copy(item) for item in objects]
        missing = [(item, copy) for item, copy in zip(objects, copies, strict=True) if not used(copy)]
        if missing:
            self._run("read", lambda s3: self._fetched(s3, missing))
            for _item, copy in missing:
                _drop_replaced(copy)
        return copies

    @contextmanager
    def replacing(
        self, table: str, columns: str, partitions: int, began: int | None = None
    ) -> Iterator[Callable[[str, Path], Outcome]]:
        """One listing, then a PUT of the rows and one of their times for each, many at once."""
        before = _by_folder(self._listed(f"{table}/")) if partitions > 1 else {}
        s3, turns = self._fs, asyncio.Semaphore(_PUTS_AT_ONCE)
        running: list[Future[bool]] = []

        async def whole(folder: str, staged: Path, known: StoredObject | None) -> bool:
            try:
                async with turns:
                    made = await self._replace(s3, f"{table}/{folder}/", staged, known, columns, began)
                    self._known.changed(table, folder, made)
                    return known is None or made.times.changed != known.times.changed
            finally:
                shutil.rmtree(staged.parent, ignore_errors=True)

        def replaced(folder: str, staged: Path) -> Outcome:
            known = (before if partitions > 1 else _by_folder(self._listed(f"{table}/{folder}/"))).get(folder)
            put = asyncio.run_coroutine_threadsafe(whole(folder, staged, known), s3.loop)
            running.append(put)
            return put.result

        try:
            yield replaced
        finally:
            wait(running)
        for each in running:
            if error := each.exception():
                if _is_of_the_store(error):
                    raise self._explained(error, "write") from None
                raise error

    def delete(self, table: str, folder: str) -> None:
        """The rows go first: times alone are no partition."""
        found = [item.name for item in self._listed(f"{table}/{folder}/")]
        for name in sorted(found, key=lambda name: not name.endswith(f"/{FILE}")):
            self._remove(name)
        self._known.changed(table, folder, None)

    def text(self, name: str) -> str | None:
        """One GET."""
        try:
            return self._run("read", lambda s3: self._bytes(s3, self._named(name))).decode()
        except FileNotFoundError:
            return None

    def put_text(self, name: str, text: str) -> None:
        """One PUT."""
        self._call("write", "put_object", name, Body=text.encode())

    def pull(self, folder: str) -> None:
        """One listing, and what has to be fetched."""
        if self._known.is_fresh(folder, self._fresh_for):
            return
        with self._mirrored(folder) as known:
            self._bring(folder, known, keep=True)
        self._known.pulled[folder] = time.monotonic()

    def reset(self, folder: str) -> None:
        """One listing, and what has to be fetched."""
        with self._mirrored(folder) as known:
            self._bring(folder, known, keep=False)

    def push(self, folder: str) -> None:
        """A PUT of each file that changed, notes (``.json``) after the others, and a DELETE of each that is gone."""
        with self._mirrored(folder) as known:
            files = {name: _state(self.root / name) for name in self._files(folder)}
            changed = [name for name, state in files.items() if known.get(name, _UNKNOWN)[1:] != state]
            for name in sorted(changed, key=lambda name: (name.endswith(".json"), name)):
                known[name] = (
                    self._run("write", partial(self._sent, staged=self.root / name, name=name)),
                    *files[name],
                )
            for name in known.keys() - files.keys():
                self._remove(name)
                del known[name]

    def url(self, name: str) -> str:
        """Its address."""
        return f"{self.place}/{name}"

    def check(self) -> str:
        """List, write, read and delete a small object; says how far the clocks are apart where that matters."""
        name = f"{STAGING}/check-{time.time_ns()}"
        self._call("list", "list_objects_v2", "", MaxKeys=1)
        self.put_text(name, "written and removed by a check")
        try:
            self.text(name)
        finally:
            answer = self._call("delete", "delete_object", name)
        told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        apart = abs((datetime.now(UTC) - parsedate_to_datetime(told)).total_seconds()) if told else 0
        note = f"; its clock and this machine's are {apart:.0f} s apart" if apart > 5 else ""
        return f"{self.place}{self._at}: may list, read, write and delete{note}"

    @property
    def _known(self) -> _Known:
        return _known(os.getpid(), self.place, self.root)

    @property
    def _server(self) -> str:
        """Address of the server; empty where it is Amazon's own."""
        return self._endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""

    @property
    def _at(self) -> str:
        """The endpoint, where it is not Amazon's own, without what may stand before its host."""
        parts = urlsplit(self._server)
        return f" at {parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.hostname else ""

    @property
    def _fs(self) -> Any:
        """The file system of this process and thread, of which fsspec keeps one."""
        try:
            from s3fs import S3FileSystem
        except ImportError:
            raise ObjectStorageError(
                f"the lake is at {self.place}, which needs more packages: pip install '.[s3]'"
            ) from None
        if self._server and not re.fullmatch(
            r"https?://([^/@]*@)?(\[[\da-fA-F:]+\]|[^/:@\[\]]+)(:\d+)?(/.*)?", self._server
        ):
            raise ObjectStorageError(
                f"the lake at {self.place}: SHOPAUTO_LAKE_ENDPOINT or AWS_ENDPOINT_URL is no address of a server: "
                "http://host:port, or https://host (docs/object_storage.md)"
            )
        s3 = S3FileSystem(
            endpoint_url=self._endpoint,
            use_listings_cache=False,
            config_kwargs={
                "max_pool_connections": _AT_ONCE,
                "retries": {"max_attempts": _TRIES, "mode": "standard"},
            },
        )
        s3.retries = 2  # of its own, each of so many tries: where nothing answers they would take a minute
        return s3

    def _remove(self, name: str) -> None:
        """One DELETE, which is the same whether or not it is there."""
        self._call("delete", "delete_object", name)

    def _files(self, folder: str) -> list[str]:
        """Files of a mirrored folder, by name; those with a dot before it are this machine's own."""
        found = (path for path in (self.root / folder).rglob("*") if path.is_file() and path.name[0] != ".")
        return [path.relative_to(self.root).as_posix() for path in found]

    @contextmanager
    def _mirrored(self, folder: str) -> Iterator[dict[str, tuple[str, int, int]]]:
        """Entity tag, size and time of the files of a mirrored folder when they were as stored; for one process at a time."""
        for local in (STAGING, folder):
            (self.root / local).mkdir(parents=True, exist_ok=True)
        note = self.root / folder / ".mirrored"
        with note.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            before = file.read()
            known: dict[str, tuple[str, int, int]] = {}
            with suppress(json.JSONDecodeError):  # none yet, or who wrote it was killed: then nothing is known
                known = {name: tuple(state) for name, state in json.loads(before).items()}
            try:
                yield known
            finally:
                after = json.dumps(known)
                if after != before:
                    file.truncate(0)
                    file.write(after)

    def _bring(self, folder: str, known: dict[str, tuple[str, int, int]], *, keep: bool) -> None:
        """Make the local folder what is stored; to ``keep`` what was changed here and not pushed yet."""
        for last in range(_TRIES, 0, -1):
            stored = {item.name: item for item in self._listed(f"{folder}/")}
            files = {name: _state(self.root / name) for name in self._files(folder)}
            own = {name for name, state in files.items() if known.get(name, _UNKNOWN)[1:] != state}
            gone = {name for name in files if name not in stored} - (own if keep else set())
            wanted = [
                item
                for name, item in stored.items()
                if (name not in files or known.get(name, _UNKNOWN)[0] != item.etag or name in own)
                and not (keep and (name in own or (name in known and name not in files)))
            ]
            wanted.sort(key=lambda item: (item.name.endswith(".json"), item.name))
            try:
                for notes in (False, True):  # a note tells of files: these come before it
                    part = [item for item in wanted if item.name.endswith(".json") is notes]
                    try:
                        self._run(
                            "read", partial(self._fetched, wanted=[(item, self.root / item.name) for item in part])
                        )
                    finally:  # what came before another one failed is as stored, too, not this machine's own
                        for item in part:
                            file = self.root / item.name
                            if file.exists() and (state := _state(file)) != files.get(item.name):
                                known[item.name] = (item.etag, *state)
            except Replaced:
                if last > 1:
                    continue
                raise
            for name in gone:
                (self.root / name).unlink(missing_ok=True)
            for name in known.keys() - stored.keys() - (own if keep else set()):
                del known[name]
            return

    def _call(self, what: str, method: str, name: str, **said: Any) -> dict[str, Any]:
        """One request about one name."""
        key = {"Prefix" if method == "list_objects_v2" else "Key": self._prefix + name}
        return self._run(what, lambda s3: s3._call_s3(method, Bucket=self._bucket, **key, **said))

    def _run(self, what: str, work: Callable[[Any], Awaitable[_T]]) -> _T:
        """Wait for ``work`` with the file system, in words that help where it fails."""
        from fsspec.asyn import sync

        s3 = self._fs
        try:
            return sync(s3.loop, work, s3)
        except Replaced:
            self._known.forget()
            raise
        except Exception as error:
            if not _is_of_the_store(error) or _code(error) in _NOT_THERE:
                raise
            raise self._explained(error, what) from None

    def _listed(self, under: str) -> list[StoredObject]:
        """All objects whose names begin with ``under``, page by page."""

        async def pages(s3: Any) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            more: dict[str, str] = {}
            while True:
                page = await s3._call_s3("list_objects_v2", Bucket=self._bucket, Prefix=self._prefix + under, **more)
                found += page.get("Contents", ())
                if not page.get("IsTruncated"):
                    return found
                more = {"ContinuationToken": page["NextContinuationToken"]}

        cut = len(self._prefix)
        return [
            StoredObject(item["Key"][cut:], item["Size"], item["ETag"], _by_the_store(item["LastModified"]))
            for item in self._run("list", pages)
        ]

    def _named(self, name: str, **said: Any) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + name, **said}

    async def _bytes(self, s3: Any, wanted: dict[str, Any]) -> bytes:
        """The body of an answer, asked for again where it breaks off."""
        from s3fs.core import S3_RETRYABLE_ERRORS

        for attempt in range(_TRIES):
            try:
                answer = await s3._call_s3("get_object", **wanted)
                async with answer["Body"] as body:
                    return await body.read()
            except S3_RETRYABLE_ERRORS:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError

    async def _fetched(self, s3: Any, wanted: Sequence[tuple[StoredObject, Path]]) -> None:
        """Fetch objects in the versions that are known. Raises :class:`Replaced` where one of them is no more."""
        turns = asyncio.Semaphore(_AT_ONCE)

        async def part(item: StoredObject, file: int, start: int, end: int) -> None:
            cut = {"Range": f"bytes={start}-{end - 1}"} if end - start < item.size else {}
            async with turns:
                try:
                    content = await self._bytes(s3, self._named(item.name, IfMatch=item.etag, **cut))
                except OSError as error:
                    if _code(error) in _NOT_THIS_VERSION:
                        raise Replaced(item.name) from error
                    raise
            os.pwrite(file, content, start)

        async def whole(item: StoredObject, copy: Path) -> None:
            staged = staged_name(self.root, "copy")
            file = os.open(staged, os.O_CREAT | os.O_WRONLY)
            try:
                step = _PART if item.size > 2 * _PART else max(item.size, 1)
                starts = range(0, max(item.size, 1), step)
                await asyncio.gather(*(part(item, file, n, min(n + step, item.size)) for n in starts))
                _keep(staged, copy)
            finally:
                os.close(file)
                staged.unlink(missing_ok=True)

        done = await asyncio.gather(*(whole(item, copy) for item, copy in wanted), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error

    async def _replace(
        self, s3: Any, under: str, staged: Path, before: StoredObject | None, columns: str, began: int | None
    ) -> StoredObject:
        """Compare, PUT the rows, PUT their times, DELETE the times before."""
        size = staged.stat().st_size
        if before and before.size == size and await self._same(s3, before, staged):
            etag, changed = before.etag, before.times.changed
        else:
            etag = await self._sent(s3, staged, f"{under}{FILE}")
            changed = time.time_ns()
            copy = self._copy(StoredObject(f"{under}{FILE}", size, etag, Times(changed, changed)))
            _keep(staged, copy)
            _drop_replaced(copy)
        computed = began or time.time_ns()
        marker = f"{under}{_MARKER}{computed}-{changed}-{_mark(etag)}-{columns}"
        await s3._call_s3("put_object", **self._named(marker), Body=b"")
        for old in before.markers if before else ():
            await s3._call_s3("delete_object", **self._named(old))
        return StoredObject(f"{under}{FILE}", size, etag, Times(changed, computed, columns), (marker,))

    async def _same(self, s3: Any, before: StoredObject, staged: Path) -> bool:
        copy = self._copy(before)
        try:
            if not used(copy):
                await self._fetched(s3, [(before, copy)])
        except Replaced:
            return False
        return filecmp.cmp(staged, copy, shallow=False)

    async def _sent(self, s3: Any, staged: Path, name: str) -> str:
        """PUT a local file, or each part of a large one: its entity tag."""
        if staged.stat().st_size > 2 * _PART:
            return await self._sent_in_parts(s3, staged, name)
        answer = await s3._call_s3("put_object", **self._named(name), Body=staged.read_bytes())
        return str(answer["ETag"])

    async def _sent_in_parts(self, s3: Any, staged: Path, name: str) -> str:
        """The tag is that of the answer: a HEAD afterwards may tell of another writer's object."""
        upload = (await s3._call_s3("create_multipart_upload", **self._named(name)))["UploadId"]
        turns = asyncio.Semaphore(4)

        async def part(number: int) -> dict[str, Any]:
            async with turns:
                with staged.open("rb") as file:
                    file.seek((number - 1) * _PART)
                    body = file.read(_PART)
                said = self._named(name, UploadId=upload, PartNumber=number, Body=body)
                return {"PartNumber": number, "ETag": (await s3._call_s3("upload_part", **said))["ETag"]}

        try:
            numbers = range(1, math.ceil(staged.stat().st_size / _PART) + 1)
            parts = await asyncio.gather(*map(part, numbers), return_exceptions=True)
            for each in parts:
                if isinstance(each, BaseException):
                    raise each
            said = self._named(name, UploadId=upload, MultipartUpload={"Parts": parts})
            return str((await s3._call_s3("complete_multipart_upload", **said))["ETag"])
        except BaseException:
            with suppress(Exception):
                await s3._call_s3("abort_multipart_upload", **self._named(name, UploadId=upload))
            raise

    def _copy(self, item: StoredObject) -> Path:
        folder, _, file = item.name.rpartition("/")
        return self.root / _COPIES / folder / f"{_mark(item.etag)}-{file}"

    def _sweep(self) -> None:
        """Once a day, remove copies that nobody uses any more."""
        last = self.root / _COPIES / ".swept"
        now = time.time()
        with suppress(FileNotFoundError):
            if now - last.stat().st_mtime < 24 * 3600:
                return
        last.parent.mkdir(parents=True, exist_ok=True)
        last.touch()
        for copy in last.parent.rglob("*.parquet"):
            with suppress(FileNotFoundError):  # another process was faster
                if now - copy.stat().st_atime > _UNUSED_SECONDS:
                    copy.unlink()

    def _explained(self, error: BaseException, what: str) -> ObjectStorageError:
        """What went wrong and what to do, without anything that the server or a library said of keys."""
        code, kind = _code(error), {kind.__name__ for kind in type(error).__mro__}
        place = f"{self.place}{self._at}"
        if code == "NoSuchBucket":
            text = f"there is no bucket {self._bucket}: create it, or correct SHOPAUTO_LAKE"
        elif code in _UNKNOWN_KEYS:
            text = f"the keys are not accepted ({code}): correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or renew them"
        elif code == "RequestTimeTooSkewed":
            text = "the clock of this machine is wrong: set it by NTP"
        elif code in _OTHER_REGION:
            text = f"the bucket is in another region ({code}): set AWS_DEFAULT_REGION"
        elif code in ("AccessDenied", "403") or isinstance(error, PermissionError):
            text = f"may not {what}: the keys need {RIGHTS}"
        elif kind & {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}:
            text = "no keys were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role of the machine"
        elif kind & {"ConnectionError", "HTTPClientError", "TimeoutError", "FSTimeoutError"}:
            text = "it cannot be reached: correct SHOPAUTO_LAKE_ENDPOINT or AWS_ENDPOINT_URL, or look at the network"
        else:
            text = f"could not {what} ({code or type(error).__name__}): run `shopauto doctor`"
        return ObjectStorageError(f"the lake at {place}: {text} (docs/object_storage.md)")


class _Known:
    """What this process knows of a lake: listings, with their time, and what it changed itself since."""

    def __init__(self) -> None:
        self._tables: dict[str, tuple[float, dict[str, StoredObject]]] = {}
        self._partitions: dict[tuple[str, str], tuple[float, StoredObject | None]] = {}
        self.pulled: dict[str, float] = {}
        self._changes = 0

    def table(
        self, table: str, fresh_for: float, look: Callable[[], dict[str, StoredObject]]
    ) -> dict[str, StoredObject]:
        """The partitions of a table."""
        when, known = self._tables.get(table, (-math.inf, {}))
        if (now := time.monotonic()) - when < fresh_for:
            return dict(known)
        before = self._changes
        found = look()
        if before == self._changes:  # else it may lack what another thread wrote meanwhile
            self._tables[table] = now, found
        return dict(found)

    def partition(
        self, table: str, folder: str, fresh_for: float, look: Callable[[], StoredObject | None]
    ) -> StoredObject | None:
        """One partition."""
        now = time.monotonic()
        whole, of_table = self._tables.get(table, (-math.inf, {}))
        when, known = self._partitions.get((table, folder), (-math.inf, None))
        if now - max(whole, when) < fresh_for:
            return of_table.get(folder) if whole > when else known
        before = self._changes
        found = look()
        if before == self._changes:
            self._partitions[table, folder] = now, found
        return found

    def changed(self, table: str, folder: str, made: StoredObject | None) -> None:
        """This process has written or deleted a partition."""
        self._changes += 1
        self._partitions[table, folder] = time.monotonic(), made
        if table in self._tables:
            when, known = self._tables[table]
            rest = {name: item for name, item in known.items() if name != folder}
            self._tables[table] = when, rest | ({folder: made} if made else {})

    def is_fresh(self, folder: str, fresh_for: float) -> bool:
        """Whether a mirrored folder was pulled a moment ago."""
        return time.monotonic() - self.pulled.get(folder, -math.inf) < fresh_for

    def forget(self) -> None:
        """Others have changed what is known."""
        self._changes += 1
        self._tables.clear()
        self._partitions.clear()
        self.pulled.clear()


@cache
def _known(process: int, place: str, root: Path) -> _Known:
    """All sessions of a process see what each of them changes."""
    return _Known()


def _by_folder(found: Sequence[StoredObject]) -> dict[str, StoredObject]:
    """The files of partitions by folder, with the times that stand beside them, if they are of this version."""
    files: dict[str, StoredObject] = {}
    beside: dict[str, list[str]] = {}
    for item in found:
        folder, file = item.name.rsplit("/", 2)[-2:]
        if file == FILE:
            files[folder] = item
        elif file.startswith(_MARKER):
            beside.setdefault(folder, []).append(item.name)
    return {folder: _with_times(item, beside.get(folder, ())) for folder, item in files.items()}


def _with_times(item: StoredObject, markers: Sequence[str]) -> StoredObject:
    mark = _mark(item.etag)
    told = (_TOLD.fullmatch(name.rpartition(_MARKER)[2]) for name in markers)
    times = [(int(one[1]), int(one[2]), one[4]) for one in told if one and one[3] == mark]
    if not times:  # its writer was killed in between: by the store
        return replace(item, markers=tuple(markers))
    computed, changed, columns = max(times)
    return replace(item, times=Times(changed, computed, columns), markers=tuple(markers))


def _by_the_store(modified: datetime) -> Times:
    """Times in seconds, so that what was computed from an object in the second of its change is computed again."""
    seconds = int(modified.timestamp())
    return Times((seconds + 1) * 10**9, seconds * 10**9)


def _common(names: Sequence[str]) -> str:
    """What all names begin with."""
    first, last = min(names, default=""), max(names, default="")
    return first[: next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _mark(etag: str) -> str:
    """An entity tag, of whatever signs, as part of a name."""
    return hashlib.sha256(etag.encode()).hexdigest()[:16]


def _keep(staged: Path, target: Path) -> None:
    """Make a local file what this machine has of an object."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(staged, target)


def _drop_replaced(copy: Path) -> None:
    """Remove copies of other versions of the same partition that nobody has used for a while."""
    for old in copy.parent.glob(f"*-{FILE}"):
        with suppress(FileNotFoundError):
            if old != copy and time.time() - old.stat().st_atime > _REPLACED_SECONDS:
                old.unlink()


def _state(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _is_of_the_store(error: BaseException) -> bool:
    """Whether an error came from the store or from the way there: those of the libraries for it share no base."""
    theirs = {kind.__module__.partition(".")[0] for kind in type(error).__mro__} & _LIBRARIES
    return bool(theirs or _code(error)) or isinstance(error, (TimeoutError, ConnectionError))


def _code(error: BaseException) -> str:
    """S3's word for what is wrong; empty where it did not answer."""
    answer = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))
