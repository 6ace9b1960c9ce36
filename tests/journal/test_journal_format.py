"""The octets of records and segments: whole or not at all (R-DUR-6, R-INJ-2)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailsrv.address import Address
from mailsrv.interfaces.content import FileContent, InlineContent
from mailsrv.interfaces.envelope import BodyType, DeliverBy, EnvelopeParameters, Notify, ReturnContent
from mailsrv.interfaces.journal import Applied, DeliveryKey, JournaledMessage, JournalRecord, LocalDelivery
from mailsrv.interfaces.queue import (
    Destination,
    Ending,
    OnwardDelivery,
    OnwardRecipient,
    QueueSettlement,
    Transport,
)
from mailsrv.journal.delivery import decode_delivery, encode_delivery
from mailsrv.journal.format import (
    FLAG_WANTS_NOTE,
    HEAD_OCTETS,
    Place,
    RecordType,
    decode_deliveries,
    decode_head,
    decode_key,
    decode_note,
    decode_place,
    encode_deliveries,
    encode_key,
    encode_note,
    encode_place,
    encode_record,
)
from mailsrv.journal.octets import FormatError, Reader
from mailsrv.journal.segment import FIRST_RECORD, Segment
from mailsrv.testing.disk import ModelDisk

SPOOL = "/spool"
ID = bytes(range(16))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
accounts = st.builds(
    Address, st.text("abcxyz.-+'é", min_size=1, max_size=20), st.sampled_from(["example.test", "b.example"])
)
locals_ = st.builds(LocalDelivery, accounts, texts, st.frozensets(texts, max_size=4), texts)
times = st.integers(-(2**40), 2**40)
parameters = st.builds(
    EnvelopeParameters,
    st.sampled_from(BodyType),
    st.booleans(),
    st.none() | st.sampled_from(ReturnContent),
    texts,
    st.booleans(),
    st.integers(-9, 9),
    st.none() | st.builds(DeliverBy, times, st.booleans(), st.booleans()),
    st.none() | times,
)
destinations = st.builds(Destination, st.sampled_from(Transport), texts)
recipients = st.builds(OnwardRecipient, accounts, destinations, st.integers(0, 15).map(Notify), texts)
onwards = st.builds(
    OnwardDelivery,
    st.none() | accounts,
    st.lists(recipients, min_size=1, max_size=3).map(tuple),
    parameters,
    texts,
)
ids = st.integers(0, 2**63 - 1)
settlements = st.builds(QueueSettlement, ids, st.lists(ids, max_size=4).map(tuple), st.sampled_from(Ending), texts)
deliveries = st.one_of(locals_, onwards, settlements)
contents = st.one_of(
    st.builds(InlineContent, st.binary(max_size=300)),
    st.builds(
        FileContent,
        st.text("0123456789abcdef", min_size=1, max_size=24).map(lambda name: f"{SPOOL}/{name}"),
        st.integers(0, 2**63),
        st.binary(min_size=16, max_size=16),
    ),
)
messages = st.builds(
    JournaledMessage,
    contents,
    st.lists(deliveries, max_size=3).map(tuple),
    st.integers(-(2**40), 2**40),
    st.integers(-840, 840),
)
records = st.builds(JournalRecord, st.lists(messages, max_size=3).map(tuple), texts, texts)
keys = st.builds(DeliveryKey, st.binary(min_size=16, max_size=16), st.integers(0, 2**63), st.integers(0, 2**32 - 1))
notes = st.builds(Applied, keys, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**63))


@given(records)
def test_deliveries_round_trip(record):
    assert decode_deliveries(b"".join(encode_deliveries(record)), SPOOL) == record


def test_records_of_before_the_queue_are_still_read():
    """The octets of a record with local deliveries only are what they always were."""
    old = bytes.fromhex(
        "0001740001730001"
        "000000006553f100003c0000000001"
        "0001610006622e746573740005494e424f58000161000100055c5365656e"
        "000000026869"
    )
    delivery = LocalDelivery(Address("a", "b.test"), "INBOX", frozenset(["\\Seen"]), "a")
    record = JournalRecord((JournaledMessage(InlineContent(b"hi"), (delivery,), 1_700_000_000, 60),), "t", "s")
    assert b"".join(encode_deliveries(record)) == old
    assert decode_deliveries(old, SPOOL) == record


@given(deliveries)
@settings(max_examples=60)
def test_r_dur_6_a_delivery_cut_or_changed_anywhere_is_another_one_or_an_error(delivery):
    octets = encode_delivery(delivery)
    for end in range(len(octets)):
        with pytest.raises(FormatError):
            decode_delivery(Reader(octets[:end]))
    for at in range(len(octets)):
        damaged = octets[:at] + bytes([octets[at] ^ 0x41]) + octets[at + 1 :]
        try:
            assert decode_delivery(Reader(damaged)) != delivery
        except FormatError:
            continue


@given(st.lists(notes, max_size=4))
def test_notes_round_trip(values):
    assert decode_note(b"".join(encode_note(values))) == values


@given(keys)
def test_keys_and_places_round_trip(key):
    assert decode_key(b"".join(encode_key(key))) == key
    place = b"".join(encode_place(key.segment_id, key.offset))
    assert decode_place(place) == Place(key.segment_id, key.offset)


@given(records)
@settings(max_examples=30)
def test_r_dur_6_a_payload_cut_at_any_octet_is_no_record(record):
    octets = b"".join(encode_deliveries(record))
    for end in range(len(octets)):
        with pytest.raises(FormatError):
            decode_deliveries(octets[:end], SPOOL)
    with pytest.raises(FormatError):
        decode_deliveries(octets + b"\0", SPOOL)


@given(st.binary(max_size=200))
def test_any_octets_are_a_record_or_an_error(octets):
    for decode in (
        decode_note,
        decode_key,
        decode_place,
        lambda payload: decode_deliveries(payload, SPOOL),
        lambda payload: decode_delivery(Reader(payload)),
    ):
        try:
            decode(octets)
        except FormatError:
            continue


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b"])
def test_r_inj_2_a_file_name_never_leads_out_of_the_spool(name):
    record = JournalRecord((JournaledMessage(FileContent("/spool/x", 1, b""), (), 0),))
    octets = b"".join(encode_deliveries(record))
    broken = octets.replace(b"\x00\x01x", len(name).to_bytes(2, "big") + name.encode())
    with pytest.raises(FormatError):
        decode_deliveries(broken, SPOOL)


def test_r_inj_2_separators_mean_nothing():
    delivery = LocalDelivery(Address("a b", "example.test"), "x\r\n\0y", frozenset(["\\Seen\n"]), "<>\r\n")
    record = JournalRecord((JournaledMessage(InlineContent(b"\0\r\n"), (delivery,), 0),), "t\n", "r\0")
    assert decode_deliveries(b"".join(encode_deliveries(record)), SPOOL) == record


def test_values_that_do_not_fit_are_refused():
    record = JournalRecord((JournaledMessage(InlineContent(b""), (LocalDelivery(Address("a", "b"), "x" * 70000),), 0),))
    with pytest.raises(FormatError):
        encode_deliveries(record)


def test_an_account_that_is_no_address_is_refused():
    record = JournalRecord((JournaledMessage(InlineContent(b""), (LocalDelivery(Address("a", "example.test")),), 0),))
    octets = b"".join(encode_deliveries(record)).replace(b"example.test", b"exam\nle.test")
    with pytest.raises(FormatError):
        decode_deliveries(octets, SPOOL)


@given(records, st.integers(0, 2**32), st.integers(0, 2**31))
def test_a_head_covers_its_payload(record, offset, batch):
    payload = encode_deliveries(record)
    head, *rest = encode_record(RecordType.DELIVERIES, FLAG_WANTS_NOTE, (ID, offset), batch, payload)
    read = decode_head(head)
    assert read is not None
    assert (read.type, read.flags, read.length) == (1, 1, sum(map(len, payload)))
    assert (read.offset, read.batch, read.segment_id) == (offset, batch, ID)
    assert read.covers(b"".join(rest))
    assert not read.covers(b"".join(rest) + b"x")


# -- segments ----------------------------------------------------------------------


def new_segment(size=16384):
    disk = ModelDisk()
    segment = Segment.initialise(disk, "/one.segment", ID, 7, size)
    return disk, segment


def append(segment, *payloads):
    buffers, at = [], segment.end
    for payload in payloads:
        buffers += segment.encode(RecordType.NOTE, 0, at, [payload])
        at += HEAD_OCTETS + len(payload)
    segment.append(buffers)


def payloads_of(segment):
    return [record.payload for record in segment.records()]


PAYLOADS = [b"first" * 30, b"", b"third" * 50]


def test_a_segment_gives_back_what_was_appended():
    disk, segment = new_segment()
    append(segment, *PAYLOADS[:2])
    append(segment, PAYLOADS[2])
    again = Segment.open(disk, "/one.segment")
    assert again is not None
    assert (again.segment_id, again.sequence) == (ID, 7)
    assert payloads_of(again) == PAYLOADS
    assert [record.batch for record in again.records()] == [0, 0, 1]


def test_r_dur_6_a_segment_cut_at_any_octet_never_gives_a_wrong_record():
    disk, segment = new_segment()
    append(segment, *PAYLOADS)
    whole = segment.file.read(0, 1 << 20)
    for end in range(FIRST_RECORD, segment.end):
        file = disk.open_or_create("/cut")
        file.truncate(0)
        file.write(0, [whole[:end].ljust(len(whole), b"\0")])
        read = Segment.open(disk, "/cut")
        assert read is not None
        found = payloads_of(read)
        assert found == PAYLOADS[: len(found)]
        assert len(found) < 3


def test_r_dur_6_a_flipped_bit_never_gives_a_wrong_record():
    disk, segment = new_segment()
    append(segment, *PAYLOADS)
    whole = bytearray(segment.file.read(0, 1 << 20))
    for at in range(FIRST_RECORD, segment.end):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        file = disk.open_or_create("/damaged")
        file.write(0, [bytes(damaged)])
        read = Segment.open(disk, "/damaged")
        assert read is not None
        found = payloads_of(read)
        assert found == PAYLOADS[: len(found)]
        assert len(found) < 3


def test_the_header_survives_no_flipped_bit():
    disk, segment = new_segment()
    whole = segment.file.read(0, 1 << 20)
    for at in range(36):
        file = disk.open_or_create("/damaged")
        file.write(0, [whole[:at], bytes([whole[at] ^ 0x10]), whole[at + 1 :]])
        assert Segment.open(disk, "/damaged") is None


def test_an_earlier_life_is_never_read_again():
    disk, segment = new_segment()
    append(segment, *PAYLOADS)
    segment.renew(bytes(16), 8)
    assert payloads_of(segment) == []
    append(segment, b"new")
    again = Segment.open(disk, "/one.segment")
    assert again is not None
    assert payloads_of(again) == [b"new"]


def test_what_lies_behind_damaged_records_is_found_again():
    """A torn last batch is the trace of a power cut; one in the middle is a disk that lost what was synced."""
    disk, segment = new_segment()
    for payload in (b"one", b"two", b"three", b"four"):
        append(segment, payload * 20)
    records = list(segment.records())
    whole = segment.file.read(0, 1 << 20)
    for index, expected in ((0, [1, 2, 3]), (1, [0, 2, 3]), (2, [0, 1, 3])):
        damaged = Segment.open(disk, "/one.segment")
        assert damaged is not None
        damaged.file.write(records[index].offset + 50, [b"\xff"])
        assert damaged.find_damage() == 1
        assert payloads_of(damaged) == [records[kept].payload for kept in expected]
        damaged.file.write(0, [whole])
    torn = Segment.open(disk, "/one.segment")
    assert torn is not None
    torn.file.write(records[3].offset + 50, [b"\xff"])
    assert torn.find_damage() == 0
    assert payloads_of(torn) == [record.payload for record in records[:3]]


@given(st.lists(st.lists(st.binary(max_size=400), min_size=1, max_size=3), max_size=5), st.integers(0, 40), st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_r_dur_6_after_a_power_cut_synced_batches_are_whole_and_the_torn_one_is_a_prefix(batches, seed, data):
    disk, segment = new_segment(32768)
    disk.sync_directory("/")
    for batch in batches[:-1]:
        append(segment, *batch)
    if batches:
        buffers, at = [], segment.end
        for payload in batches[-1]:
            buffers += segment.encode(RecordType.NOTE, 0, at, [payload])
            at += HEAD_OCTETS + len(payload)
        segment.file.write(segment.end, buffers)
    read = Segment.open(disk.after_power_cut(seed), "/one.segment")
    assert read is not None
    found = payloads_of(read)
    synced = [payload for batch in batches[:-1] for payload in batch]
    assert found[: len(synced)] == synced
    everything = synced + (batches[-1] if batches else [])
    assert found == everything[: len(found)]
