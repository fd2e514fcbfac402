"""Which answer is whose, where many come together."""

from __future__ import annotations

from cloud_runtimes.components.nats.connection import Servers
from cloud_runtimes.components.nats.protocol import Session
from cloud_runtimes.components.nats.requests import Batch, Bulk, Call, Inbox, Request


def taken(reply: bytes, *numbers: int, more: bytes = b"") -> bytes:
    answers = [b'{"stream":"S", "seq":%d%b}' % (number, more) for number in numbers]
    return b"".join([b"MSG %b 1 %d\r\n%b\r\n" % (reply, len(each), each) for each in answers])


def test_acknowledgements_in_a_row() -> None:
    """Acknowledgements of two bulks and of a plain request are read, wherever they are cut."""
    seen: list[bytes] = []

    def render(reply: bytes) -> bytes:
        seen.append(reply)
        return b"x"

    for cut in range(0, 400, 7):
        inbox, session, done = Inbox("_INBOX"), Session(), []
        session.callbacks[1], session.bulk = inbox.take, inbox.take_bulk
        seen.clear()
        one, two = Bulk("a", render, 3), Bulk("b", render, 2)
        call = Call(Batch(one, Request("c"), two), done.append)
        sent = inbox.begin(call, Batch(one, Request("c"), two))
        plain = sent.split()[2]
        error = b'{"error":{"code":503,"err_code":10077,"description":"full"},"stream":"S","seq":0}'
        refused = b"MSG %b 1 %d\r\n%b\r\n" % (seen[1], len(error), error)
        came = taken(seen[0], 1, 2) + taken(plain, 3) + taken(seen[1], 4, more=b',"duplicate": true') + refused
        came += taken(seen[0], 5, more=b',"domain":"hub"')
        session.feed(came[:cut])
        session.feed(came[cut:])
        assert done == [call]
        assert (one.taken, two.taken) == (3, 1)
        assert [len(answers) for answers in call.answers] == [0, 1, 1]
        assert call.answers[1][0].data == b'{"stream":"S", "seq":3}'
        assert call.answers[2][0].data == error
        assert not inbox.waiting


def test_messages_of_the_inbox_that_are_no_answers() -> None:
    """Messages of another program, or for a consumer that nobody asked, are dropped."""
    inbox, session = Inbox("_INBOX"), Session()
    session.callbacks[1] = inbox.take
    for reply in (b"", b"x ", b"a.b.c.d.e ", b"$JS.ACK.S.C.1.2.3.4.5 "):
        session.feed(b"MSG x 1 %b2\r\nhi\r\n" % reply)
    assert not inbox.waiting


def test_servers_that_a_server_tells_of() -> None:
    """So many at most, and only those that can be connected to."""
    servers = Servers((("given", 4222),))
    servers.learn(["a:1", "[::1]:2", "b:0", "c:65536", "d:²", "e", ":5", "f:99999999999"])
    assert list(servers) == [("given", 4222), ("a", 1), ("::1", 2)]
    servers.learn([f"h{number}:1" for number in range(3_000)])
    assert list(servers) == [("given", 4222), *[(f"h{number}", 1) for number in range(256)]]


def test_an_answer_that_nobody_waits_for() -> None:
    inbox, session, replies = Inbox("_INBOX"), Session(), list[bytes]()
    session.callbacks[1], session.bulk = inbox.take, inbox.take_bulk
    bulk = Bulk("a", lambda reply: replies.append(reply) or b"", 2)  # type: ignore[func-returns-value]
    call = Call(Batch(bulk), lambda call: None)
    inbox.begin(call, Batch(bulk))
    inbox.forget(call)
    session.feed(taken(replies[0], 1, 2))
    assert (bulk.taken, call.remaining) == (0, 1)
    inbox.denied('Permissions Violation for Publish to "a"')
    assert call.failure is None


def test_a_bulk_that_is_denied() -> None:
    inbox = Inbox("_INBOX")
    bulk = Bulk("a.b", lambda reply: b"", 2)
    done: list[Call] = []
    call = Call(Batch(bulk), done.append)
    inbox.begin(call, Batch(bulk))
    inbox.denied('Permissions Violation for Publish to "a.b"')
    assert done == [call]
    assert call.failure is not None
