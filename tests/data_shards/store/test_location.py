"""Folders and object stores behave alike; what goes wrong names the URL, the remedy, no secret."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from data_shards.errors import CorruptDataError, InputError
from data_shards.store import location as module
from data_shards.store.location import Location, MissingObjectError

KEY, SECRET, TOKEN = "AKIAVERYPRIVATE", "very/secret+key", "very-secret-token"


class Requests(logging.Handler):
    """What a server was asked: ("GET", "/bucket/key")."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if match := re.search(r"(GET|PUT|HEAD|POST|DELETE) (/\S*) HTTP", record.getMessage()):
            self.seen.append((match[1], match[2]))

    def objects(self) -> list[str]:
        """Keys of the objects that were fetched, sorted."""
        return sorted(path for method, path in self.seen if method == "GET" and "?" not in path)


class Store:
    """An S3 server on this machine, with one bucket."""

    def __init__(self, endpoint: str, requests: Requests) -> None:
        self.endpoint, self.requests = endpoint, requests

    def ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        """Send a request as anybody."""
        kind = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.endpoint}/{path}", content, kind, method=method)
        with urllib.request.urlopen(request) as answer:
            body: bytes = answer.read()
        return body


@pytest.fixture(scope="session")
def server() -> Iterator[Store]:
    logger = logging.getLogger("werkzeug")
    requests = Requests()
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(requests)
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield Store(f"http://{host}:{port}", requests)
    running.stop()
    logger.removeHandler(requests)
    logger.level, logger.propagate = before


def set_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Give this process credentials and an endpoint as a person would, and nothing else."""
    for name in os.environ:
        if name.startswith(("AWS_", "GOOGLE_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)


@pytest.fixture
def store(server: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty bucket ``bucket``, and the environment to use it."""
    set_environment(monkeypatch, server.endpoint)
    server.ask("POST", "moto-api/reset", b"")
    server.ask("PUT", "bucket")
    server.requests.seen.clear()
    return server


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "s3":
        request.getfixturevalue("store")
        return Location.parse("s3://bucket/some/prefix")
    return Location.parse(str(tmp_path / "folder"))


def test_what_is_written_is_read(place: Location) -> None:
    for name in ("zarr.json", "labels/c/0/0", "with space/ä+%20#?", "empty"):
        content = b"" if name == "empty" else name.encode() * 3
        assert place.size(name) is None
        place.write(name, content)
        assert place.read(name) == content
        assert place.size(name) == len(content)
        place.write(name, memoryview(b"other"))
        assert place.read(name) == b"other"


def test_a_large_object_is_read_in_one_request_into_given_memory(place: Location) -> None:
    content = np.random.default_rng(0).integers(0, 256, 10_000_001).astype(np.uint8)
    place.write("large", content.data)
    memory = np.zeros(len(content), dtype=np.uint8)
    place.read_into("large", memory)
    assert np.array_equal(memory, content)


@pytest.mark.parametrize("size", [0, 4, 6])
def test_an_object_of_another_size_than_the_memory_is_corrupt(place: Location, size: int) -> None:
    place.write("five", b"12345")
    memory = np.zeros(size, dtype=np.uint8)
    with pytest.raises(CorruptDataError, match=rf"five: 5 bytes where there should be {size}"):
        place.read_into("five", memory)


def test_a_missing_object_is_our_own_error(place: Location) -> None:
    for read in (place.read, lambda name: place.read_into(name, np.zeros(1, np.uint8))):
        with pytest.raises(MissingObjectError, match=r"(prefix|folder)/no/such: no such"):
            read("no/such")
    assert place.size("no/such") is None
    place.delete("no/such")


def test_only_the_first_creates(place: Location) -> None:
    assert place.create("lock", b"first")
    assert not place.create("lock", b"second")
    assert place.read("lock") == b"first"
    place.delete("lock")
    assert place.size("lock") is None
    assert place.create("lock", b"third")


def test_of_many_at_once_one_creates(place: Location) -> None:
    place.write("warm", b"")
    won: list[int] = []
    threads = [
        threading.Thread(
            target=lambda n: won.append(n) if place.create("lock", b"%d" % n) else None, args=(n,)
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert place.read("lock") == b"%d" % won[0]


def test_a_listing_is_sorted_and_relative(place: Location) -> None:
    assert place.list() == place.list("a") == []
    names = ["a/c/0", "a/c/10", "a/c/2", "a/zarr.json", "ab/c/0", "zarr.json"]
    for name in reversed(names):
        place.write(name, b"x")
    assert place.list() == names
    assert place.list("a") == names[:4]
    assert place.list("a/c") == names[:3]
    assert place.list("b") == []


def test_a_listing_of_many_pages_is_whole(place: Location) -> None:
    names = [f"many/{number:04d}" for number in range(120)]
    for name in names:
        place.write(name, b"")
    assert place.list("many") == names


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/passwd", "a/../../b", "a//b", "a/"])
def test_a_name_that_could_leave_the_location_is_refused(place: Location, name: str) -> None:
    with pytest.raises(ValueError, match="no relative name"):
        place.read(name)
    with pytest.raises(ValueError, match="no relative name"):
        place.write(name, b"")


def test_unfinished_files_are_not_listed_and_cleared(tmp_path: Path) -> None:
    place = Location.parse(str(tmp_path))
    place.write("x", b"1")
    place.create("y", b"2")
    place.create("y", b"3")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]
    (tmp_path / ".z.0123abcd.partial").write_bytes(b"half")  # of a writer that was killed
    assert place.list() == ["x", "y"]


def test_what_the_disk_refuses_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    place = Location.parse(str(tmp_path))
    with pytest.raises(InputError, match=rf"{tmp_path}/folder: Is a directory\n  remedy: check"):
        place.read("folder")
    with pytest.raises(InputError, match="file/below: File exists"):
        place.create("file/below", b"")
    with pytest.raises(MissingObjectError, match="file/below: no such file"):
        place.read("file/below")
    assert place.size("folder") is None


@pytest.mark.parametrize(
    ("text", "again", "folder"),
    [
        ("data/x.zarr", "data/x.zarr", Path("data/x.zarr")),
        ("/data/x.zarr", "/data/x.zarr", Path("/data/x.zarr")),
        ("s3://bucket/x.zarr", "s3://bucket/x.zarr", None),
        ("s3://bucket//a//x.zarr/", "s3://bucket/a/x.zarr", None),
        ("s3://bucket", "s3://bucket", None),
        ("gs://my.bucket_1/a b/ä", "gs://my.bucket_1/a b/ä", None),
    ],
)
def test_a_location_keeps_its_text(text: str, again: str, folder: Path | None) -> None:
    place = Location.parse(text)
    assert str(place) == again
    assert place.folder == folder
    assert Location.parse(str(place)) == place


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("http://host/x", "unknown kind of location: http://"),
        ("s3://", "not a bucket and a prefix"),
        ("s3:///x", "not a bucket and a prefix"),
        ("s3://x/y", "not a bucket and a prefix"),
        ("s3://buck et/y", "not a bucket and a prefix"),
        ("s3://bucket/../other", "not a bucket and a prefix"),
        ("s3://me:hush@bucket/x", "is a bucket and a prefix, and nothing else"),
        ("s3://bucket/x?X-Amz-Signature=hush", "is a bucket and a prefix, and nothing else"),
        ("gs://bucket/x#hush", "is a bucket and a prefix, and nothing else"),
    ],
)
def test_a_bad_location_is_refused_without_repeating_secrets(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as error:
        Location.parse(text)
    assert "hush" not in str(error.value)
    assert error.value.remedy


def test_credentials_do_not_travel(store: Store) -> None:
    place = Location.parse("s3://bucket/x")
    place.write("a", b"1")
    frozen = pickle.dumps(place)
    assert SECRET.encode() not in frozen
    assert KEY.encode() not in frozen
    assert pickle.loads(frozen).read("a") == b"1"
    assert SECRET not in repr(place)


def everything(place: Location) -> list[Callable[[], object]]:
    return [
        lambda: place.read("a"),
        lambda: place.read_into("a", np.zeros(1, np.uint8)),
        lambda: place.size("a"),
        lambda: place.write("a", b"1"),
        lambda: place.create("a", b"1"),
        lambda: place.list("a"),
        lambda: place.delete("a"),
    ]


def refused(action: Callable[[], object], problem: str, remedy: str) -> None:
    """Check one refusal: what it says, that no secret is in it, and nothing behind it."""
    with pytest.raises(InputError, match=problem) as error:
        action()
    assert str(error.value.path).startswith(("s3://", "gs://"))
    assert remedy in (error.value.remedy or "")
    assert not any(secret in str(error.value) for secret in (KEY, SECRET, TOKEN))
    assert error.value.__suppress_context__


def test_a_missing_bucket_is_told_from_a_missing_object(store: Store) -> None:
    for action in everything(Location.parse("s3://nobucket/x")):
        refused(action, f"there is no bucket 'nobucket' at {store.endpoint}", "create it")


def test_an_unknown_key_is_denied(store: Store) -> None:
    store.ask("POST", "moto-api/reset-auth", b"0")
    try:
        for action in everything(Location.parse("s3://bucket/x")):
            refused(action, "access is denied \\(403", "AWS_ACCESS_KEY_ID")
    finally:
        store.ask("POST", "moto-api/reset-auth", b"inf")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_an_endpoint_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, f"http://127.0.0.1:{free_port()}")
    begin = time.monotonic()
    refused(
        lambda: Location.parse("s3://bucket/x").read("a"),
        r"no answer from the object store at http://127.0.0.1:\d+: connection refused",
        "AWS_ENDPOINT_URL",
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid")
    place = Location.parse("s3://bucket/x")
    refused(lambda: place.write("a", b""), "no-such-host.invalid: unknown host", "network")
    assert time.monotonic() - begin < 20


def silent_listener() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(20)
    return listener


def test_an_endpoint_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER", timedelta(milliseconds=200))
    monkeypatch.setattr(module, "_RETRY", timedelta(milliseconds=400))
    with silent_listener() as listener:
        set_environment(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}")
        place = Location.parse("s3://bucket/x")
        refused(lambda: place.read("a"), "no answer .*: timed out", "check the network")


@pytest.mark.slow
def test_an_endpoint_that_does_not_answer_is_an_error_within_20_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with silent_listener() as listener:
        set_environment(monkeypatch, f"http://127.0.0.1:{listener.getsockname()[1]}")
        begin = time.monotonic()
        refused(lambda: Location.parse("s3://bucket/x").size("a"), "timed out", "network")
        assert 5 < time.monotonic() - begin < 20


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION"])
@pytest.mark.parametrize("value", ["host:9000", "http://me:hush@host", "ftp://host", "a b"])
def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    set_environment(monkeypatch, "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"the variable {name} is no") as error:
        Location.parse("s3://bucket/x").read("a")
    assert "hush" not in str(error.value)


def test_without_credentials_the_variables_are_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    place = Location.parse("s3://bucket/x")
    refused(lambda: place.read("a"), "no usable credentials", "AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "no-such-file.json")
    place = Location.parse("gs://bucket/x")
    refused(lambda: place.read("a"), "no usable credentials", "GOOGLE_APPLICATION_CREDENTIALS")


class Answer(BaseHTTPRequestHandler):
    """A server that answers every request with what the test put here."""

    protocol_version = "HTTP/1.1"
    status, body, promised = 200, b"", 0

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        content = self.headers["Content-Length"]
        self.rfile.read(int(content or 0))
        self.send_response(type(self).status)
        self.send_header("Content-Length", str(type(self).promised or len(type(self).body)))
        self.send_header("Last-Modified", "Tue, 01 Jan 2030 00:00:00 GMT")
        self.send_header("ETag", '"e"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(type(self).body)
        if type(self).promised:
            self.close_connection = True

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name in ("do_PUT", "do_HEAD", "do_DELETE"):
            return self.do_GET
        raise AttributeError(name)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Answer]]:
    handler = type("Fresh", (Answer,), {})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    set_environment(monkeypatch, f"http://127.0.0.1:{running.server_port}")
    monkeypatch.setattr(module, "_BACKOFF", timedelta(milliseconds=1))
    yield handler
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize(
    ("status", "problem", "remedy"),
    [
        (401, r"access is denied \(401 SomeCode\)", "AWS_ACCESS_KEY_ID"),
        (403, r"access is denied \(403 SomeCode\)", "AWS_ACCESS_KEY_ID"),
        (400, "answers 400 SomeCode", "ask who runs the store"),
        (301, "another region", "AWS_REGION"),
        (500, "answers 500 SomeCode", "try again later"),
        (503, "answers 503 SomeCode", "try again later"),
    ],
)
def test_a_refused_request_says_why_and_quotes_no_secret(
    answer: type[Answer], status: int, problem: str, remedy: str
) -> None:
    answer.status = status
    answer.body = f"<Error><Code>SomeCode</Code><K>{KEY}{SECRET}{TOKEN}</K></Error>".encode()
    place = Location.parse("s3://bucket/x")
    refused(lambda: place.read("a"), problem, remedy)
    refused(lambda: place.write("a", b"1"), problem, remedy)


def test_an_answer_that_breaks_off_is_no_content(answer: type[Answer]) -> None:
    answer.body, answer.promised = b"x" * 500, 1000
    place = Location.parse("s3://bucket/x")
    refused(lambda: place.read("a"), "no answer .*: the connection broke", "network")
    memory = np.zeros(1000, dtype=np.uint8)
    refused(lambda: place.read_into("a", memory), "the connection broke", "check the network")


def test_a_google_store_is_read_and_created_once(
    answer: type[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("GOOGLE_BASE_URL", endpoint)
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", TOKEN)
    answer.body = b"content"
    place = Location.parse("gs://bucket/x")
    assert place.read("a") == b"content"
    assert place.size("a") == 7
    assert place.create("a", b"1")
    answer.status = 412
    assert not place.create("a", b"1")
    answer.status, answer.body = 404, b"<Error><Code>NoSuchKey</Code></Error>"
    with pytest.raises(MissingObjectError, match="gs://bucket/x/a: no such object"):
        place.read("a")
    answer.body = json.dumps("no <Code>NoSuchBucket</Code>").encode()
    refused(
        lambda: place.read("a"), f"there is no bucket 'bucket' at {endpoint}", "GOOGLE_BASE_URL"
    )


def read_in_child(place: Location, pipe: Any) -> None:
    try:
        pipe.send(place.read("a"))
    except RuntimeError as error:
        pipe.send(str(error))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_forked_child_is_told_and_a_spawned_one_reads(store: Store, method: str) -> None:
    place = Location.parse("s3://bucket/x")
    place.write("a", b"content")
    context = multiprocessing.get_context(method)
    mine, theirs = context.Pipe()
    child = context.Process(target=read_in_child, args=(place, theirs))
    child.start()
    assert mine.poll(30)
    found = mine.recv()
    child.join(10)
    if method == "fork":
        assert f"forked from one ({os.getpid()}) that had used an object store" in found
    else:
        assert found == b"content"
