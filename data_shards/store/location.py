"""Where a data set lies: a local folder, or a prefix in an object store.

``s3://bucket/prefix`` and ``gs://bucket/prefix`` are read and written through obstore; every other
text is a local path. Credentials, region and endpoint come from the standard environment variables
and from nowhere else, and never go into a message.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from data_shards.errors import CorruptDataError, InputError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSConfig, GCSStore, RetryConfig, S3Config, S3Store

_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
}
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN where it is needed), "
    "or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file that holds the key, "
    "or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_NO_KEY = re.compile(r"169\.254\.|metadata\.google|(Open|Decode)Credentials|Missing\w*Key")
_REGION, _URL = re.compile(r"[A-Za-z0-9-]+"), re.compile(r"https?://[A-Za-z0-9._:\[\]/-]+")
_PARTIAL = ".partial"

# An endpoint that can't be reached, or does not answer, is an error within 20 seconds.
_CONNECT, _ANSWER, _RETRY = timedelta(seconds=3), timedelta(seconds=6), timedelta(seconds=12)
_RETRIES, _BACKOFF = 4, timedelta(milliseconds=100)
_UPLOAD = timedelta(minutes=5)  # a store answers only when the whole object has arrived
_REQUEST = timedelta(hours=1)  # of any length, as long as bytes keep coming
_PIECE = 4 << 20  # far below the size where every allocation faults in its pages anew


class MissingObjectError(LookupError):
    """There is no such file or object; the message names it."""


@dataclass(frozen=True)
class Location:
    """A folder, or a prefix in a bucket. Pickles as what it is called: no credentials travel.

    Attributes:
        scheme: "file", "s3" or "gs".
        bucket: name of the bucket; "" for a folder.
        root: path of the folder, or the prefix, without slashes at its ends.

    The methods take names relative to it, such as ``labels/c/0/0``. Besides what each says, they
    raise InputError, with URL and remedy, where the bucket is missing, access is denied, the
    endpoint can't be reached, or the disk fails; and RuntimeError in a process that was forked from
    one that had used an object store (the threads that do the work don't survive a fork).
    """

    scheme: str
    bucket: str
    root: str

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read a location from its text form.

        Raises:
            InputError: an unknown scheme, a bad bucket name, or a URL with more in it than bucket
                and prefix (which the message does not repeat: it may be a secret).
        """
        scheme, mark, rest = text.partition("://")
        if not mark:
            return cls("file", "", text)
        if scheme not in _ENDPOINTS:
            raise InputError(
                f"unknown kind of location: {scheme}://",
                remedy="give a local path, s3://bucket/prefix or gs://bucket/prefix",
            )
        if set(rest) & set("@?#"):
            raise InputError(
                f"a {scheme}:// location is a bucket and a prefix, and nothing else",
                remedy=f"give {scheme}://bucket/prefix alone; {_CREDENTIALS[scheme]}",
            )
        bucket, _, prefix = rest.partition("/")
        if not _BUCKET.fullmatch(bucket) or ".." in prefix.split("/"):
            raise InputError("not a bucket and a prefix", path=text, remedy="check the spelling")
        return cls(scheme, bucket, "/".join(part for part in prefix.split("/") if part))

    @property
    def folder(self) -> Path | None:
        """The local folder, or None if it lies in an object store."""
        return None if self.bucket else Path(self.root)

    def __str__(self) -> str:
        return (
            f"{self.scheme}://{self.bucket}/{self.root}".rstrip("/") if self.bucket else self.root
        )

    def __reduce__(self) -> tuple[object, ...]:
        return Location, (self.scheme, self.bucket, self.root)

    def url(self, relative: str) -> str:
        """Name an object in full, for messages."""
        return f"{str(self).rstrip('/')}/{relative}"

    def read(self, relative: str) -> bytes:
        """Read a whole object, by one request.

        Raises:
            MissingObjectError: there is none.
        """
        with self._explained(relative):
            if self.folder is not None:
                return (self.folder / _clean(relative)).read_bytes()
            return self._reads.get(self._key(relative)).bytes().to_bytes()

    def read_into(self, relative: str, buffer: npt.NDArray[np.uint8]) -> None:
        """Read a whole object, by one request, into memory of exactly its size.

        Args:
            relative: name of the object.
            buffer: where to put it, uint8, one axis, contiguous.

        Raises:
            MissingObjectError: there is none.
            CorruptDataError: it has another size.
        """
        view = buffer.data.cast("B")
        with self._explained(relative):
            if self.folder is not None:
                path = self.folder / _clean(relative)
                with path.open("rb", buffering=0) as stream:
                    self._expect(relative, os.fstat(stream.fileno()).st_size, len(view))
                    at = 0
                    while at < len(view) and (count := stream.readinto(view[at:])):
                        at += count
            else:
                found = self._reads.get(self._key(relative))
                self._expect(relative, found.meta["size"], len(view))
                at = 0
                for piece in found.stream(min_chunk_size=_PIECE):
                    view[at : at + len(piece)] = memoryview(piece)
                    at += len(piece)
            self._expect(relative, at, len(view))

    def size(self, relative: str) -> int | None:
        """Return the bytes of an object, or None if there is none."""
        try:
            with self._explained(relative):
                if self.folder is not None:
                    path = self.folder / _clean(relative)
                    return path.stat().st_size if path.is_file() else None
                return self._reads.head(self._key(relative))["size"]
        except MissingObjectError:
            if self.bucket:  # the answer to HEAD has no body that tells a missing bucket
                next(self._list(relative), None)
            return None

    def write(self, relative: str, content: bytes | memoryview) -> None:
        """Write an object of up to 5 GB, whole or not at all; replaces what is there.

        A file is on the disk (fsync) when this returns; missing folders are made.
        """
        with self._explained(relative):
            if self.folder is not None:
                _put(self.folder / _clean(relative), content, replace=True)
            else:
                self._writes.put(self._key(relative), content, use_multipart=False)

    def create(self, relative: str, content: bytes | memoryview) -> bool:
        """Write an object unless there is one, atomically: of many callers one gets True.

        After a broken connection even that one may get False: to be sure, write something unique
        and read it back.
        """
        from obstore.exceptions import AlreadyExistsError

        with self._explained(relative):
            if self.folder is not None:
                return _put(self.folder / _clean(relative), content, replace=False)
            try:
                key = self._key(relative)
                self._writes.put(key, content, use_multipart=False, mode="create")
            except AlreadyExistsError:
                return False
            return True

    def list(self, prefix: str = "") -> list[str]:
        """Return the names of all objects under a folder-like prefix, sorted; maybe none."""
        return sorted(self._list(prefix))

    def delete(self, relative: str) -> None:
        """Delete an object; it may be missing."""
        try:
            with self._explained(relative):
                if self.folder is not None:
                    (self.folder / _clean(relative)).unlink()
                else:
                    self._writes.delete(self._key(relative))
        except MissingObjectError:
            return

    @cached_property
    def _reads(self) -> S3Store | GCSStore:
        return self._connect(_ANSWER)

    @cached_property
    def _writes(self) -> S3Store | GCSStore:
        return self._connect(_UPLOAD)

    def _connect(self, answer: timedelta) -> S3Store | GCSStore:
        """Return a client that gives up when there is no answer (or no more of it) for a while."""
        from obstore.store import GCSStore, S3Store

        endpoint = _endpoint(self.scheme)
        client: ClientConfig = {
            "connect_timeout": _CONNECT,
            "read_timeout": answer,
            "timeout": _REQUEST,
            "allow_http": endpoint.startswith("http://"),
        }
        retry: RetryConfig = {
            "max_retries": _RETRIES,
            "retry_timeout": _RETRY,
            "backoff": {"init_backoff": _BACKOFF, "max_backoff": _CONNECT, "base": 2},
        }
        if self.scheme == "gs":
            google: GCSConfig = {"base_url": endpoint} if endpoint else {}
            return GCSStore(self.bucket, config=google, client_options=client, retry_config=retry)
        # One request an object deleted: not every store knows the one that deletes many.
        amazon: S3Config = {"disable_bulk_delete": True}
        if endpoint:
            amazon["endpoint"] = endpoint
        return S3Store(self.bucket, config=amazon, client_options=client, retry_config=retry)

    def _list(self, prefix: str) -> Iterator[str]:
        with self._explained(prefix):
            if self.folder is not None:
                top = self.folder / _clean(prefix) if prefix else self.folder
                if top.is_dir():
                    yield from _files(top, self.folder)
            else:
                start = f"{self.root}/" if self.root else ""
                for page in self._reads.list(self._key(prefix) if prefix else self.root):
                    yield from (entry["path"].removeprefix(start) for entry in page)

    def _key(self, relative: str) -> str:
        return f"{self.root}/{_clean(relative)}".lstrip("/")

    def _expect(self, relative: str, found: int, expected: int) -> None:
        if found != expected:
            raise CorruptDataError(
                f"{self.url(relative)}: {found:,} bytes where there should be {expected:,}"
            )

    @contextmanager
    def _explained(self, relative: str) -> Iterator[None]:
        """Turn what a library or the system raises into an error that a person can act on."""
        from obstore.exceptions import BaseError

        url = self.url(relative)
        if self.bucket and _first_user() != os.getpid():
            raise RuntimeError(
                f"{url}: this process was forked from one ({_first_user()}) that had used an "
                "object store; open the data in the child alone, or start it with 'spawn'"
            )
        try:
            yield
        except (BaseError, OSError) as error:
            # Not chained: the library's text repeats requests and answers, keys among them.
            fault = _store_fault if self.bucket else _disk_fault
            raise fault(self, url, error) from None


@cache
def _first_user() -> int:
    """Return the process that started obstore's threads: the first that asks."""
    return os.getpid()


def _endpoint(scheme: str) -> str:
    """Return the endpoint that the environment names, or "". obstore panics on malformed ones."""
    form = "http(s)://host:port"
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", *_ENDPOINTS[scheme]):
        value = os.environ.get(name, "")
        region = name.endswith("_REGION")
        if value and not (_REGION if region else _URL).fullmatch(value):
            what, remedy = ("region", "us-east-1, say") if region else ("plain http(s) URL", form)
            raise InputError(f"the variable {name} is no {what}", remedy=f"set it to {remedy}")
        if value and not region:
            return value
    return ""


def _store_fault(place: Location, url: str, error: Exception) -> Exception:
    """Say what a failed request means. Only parts that can't hold a secret are quoted."""
    text = str(error)
    status = "".join(re.findall(r"status code: (\d{3})", text)[:1])
    code = "".join(re.findall(r"<Code>(\w+)</Code>", text)[:1])
    endpoint = _endpoint(place.scheme)
    where = f"at {endpoint}" if endpoint else f"in the default {place.scheme} service"
    names = " or ".join(_ENDPOINTS[place.scheme][:2])
    if code == "NoSuchBucket":
        problem = f"there is no bucket {place.bucket!r} {where}"
        remedy = f"check its name, create it, or set the endpoint ({names})"
    elif isinstance(error, FileNotFoundError):
        return MissingObjectError(f"{url}: no such object")
    elif _NO_KEY.search(text):
        problem, remedy = "no usable credentials in the environment", _CREDENTIALS[place.scheme]
    elif "configured region" in text or code == "AuthorizationHeaderMalformed":
        problem = "the bucket is in another region"
        remedy = "set AWS_REGION to the region of the bucket"
    elif status in {"401", "403"}:
        problem = f"access is denied ({status} {code}".rstrip() + f") {where}"
        remedy = f"check that the key may use this bucket; {_CREDENTIALS[place.scheme]}"
    elif status:
        problem = f"the store answers {status} {code}".rstrip() + f" {where}"
        remedy = "try again later, or ask who runs the store"
    else:
        problem = f"no answer from the object store {where}: {_reason(text)}"
        remedy = f"check the network and the endpoint ({names})"
    return InputError(problem, path=url, remedy=remedy)


def _reason(text: str) -> str:
    """Name the reason of a failed connection."""
    reasons = {
        "Connection refused": "connection refused",
        "failed to lookup address": "unknown host",
        "invalid peer certificate": "its certificate is not trusted",
        "BadScheme": "http where https is required",
        "TimedOut": "timed out",
    }
    found = [words for mark, words in reasons.items() if mark in text]
    return found[0] if found else "the connection broke, or no object store answers"


def _disk_fault(_place: Location, url: str, error: Exception) -> Exception:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return MissingObjectError(f"{url}: no such file")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    remedy = "check the permissions and the room on the disk"
    return InputError(reason, path=url, remedy=remedy)


def _clean(relative: str) -> str:
    """Refuse a name that could leave the location; a programming error."""
    path = PurePosixPath(relative)
    if str(path) != relative or path.is_absolute() or ".." in path.parts or relative == ".":
        raise ValueError(f"{relative!r} is no relative name of an object")
    return relative


def _files(top: Path, base: Path) -> Iterator[str]:
    """Names of all files under a folder, relative to ``base``, but those still being written."""

    def fail(error: OSError) -> None:
        raise error

    for folder, _, names in os.walk(top, onerror=fail):
        for name in names:
            if not (name.startswith(".") and name.endswith(_PARTIAL)):
                yield (Path(folder) / name).relative_to(base).as_posix()


def _put(path: Path, content: bytes | memoryview, *, replace: bool) -> bool:
    """Write a file, durably and atomically; False if it is there and not to be replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            temporary.replace(path)
            return True
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        return True
    finally:
        temporary.unlink(missing_ok=True)
