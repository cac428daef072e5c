"""What a domain's records should be, as text; and the verdict of what was found."""

import dns.rdatatype
import dns.zone
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from panel.rules import records, verdicts
from panel.rules.records import Installation
from panel.rules.verdicts import Answer, Found, Verdict

NAME = "acme.example"
OURS = Installation(
    host="mx1.host.example", mx=("mx1.host.example", "mx2.host.example"), spf=("a:mx1.host.example",),
    ports=(("submissions", 465), ("pop3s", None)), takes_reports=True,
)
ADDRESSES = {"mx1.host.example": ("203.0.113.7",), "mx2.host.example": ("203.0.113.8",)}


def zone(text: str) -> dns.zone.Zone:
    head = f"{NAME}. IN SOA ns. root. 1 1 1 1 1\n{NAME}. IN NS ns.\n"
    return dns.zone.from_text(head + text, origin=f"{NAME}.", relativize=False, check_origin=False)


def in_dns(found: dns.zone.Zone, record: records.Record) -> set[str]:
    """What a resolver gives for it, as it is written here."""
    values = set()
    for rdata in found.find_rdataset(f"{record.name}.", record.type):
        if rdata.rdtype == dns.rdatatype.TXT:
            assert all(len(piece) <= 255 for piece in rdata.strings)
            values.add(b"".join(rdata.strings).decode())
        else:
            text = rdata.to_text()
            values.add(text if text.endswith(" .") else text.removesuffix("."))
    return values


@settings(max_examples=40)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=600), st.lists(st.sampled_from("abc"), max_size=3),
    st.booleans(),
)
def test_the_zone_file_is_read_back_as_what_it_says(text, selectors, required):
    ours = Installation(
        OURS.host, OURS.mx, OURS.spf, OURS.ports, takes_reports=True, mta_sts="sts.host.example",
        dkim=tuple((each, f"{each}.dkim.host.example") for each in dict.fromkeys(selectors)),
    )
    wanted = list(records.expected(NAME, ours, token="t0ken", proof_required=required))
    wanted[1] = records.with_values(records.proof_record("sub." + NAME, ""), text) if text else wanted[1]
    found = zone(records.zone_text(NAME, wanted))
    for record in wanted:
        assert in_dns(found, record) == set(record.values)


def test_required_and_optional_records():
    found = records.expected(NAME, OURS, token="t0ken", proof_required=True)
    required = [(one.key, one.values) for one in found if one.is_required]
    assert required == [
        ("proof", ("posthouse-proof=t0ken",)), ("mx", ("10 mx1.host.example", "20 mx2.host.example")),
        ("spf", ("v=spf1 a:mx1.host.example ~all",)), ("dmarc", ("v=DMARC1; p=none",)),
    ]
    optional = {one.key: one.values[0] for one in found if not one.is_required}
    assert optional == {
        "autoconfig": "mx1.host.example", "autodiscover": "mx1.host.example",
        "srv-autodiscover": "0 1 443 mx1.host.example", "tls-rpt": "v=TLSRPTv1; rua=mailto:postmaster@acme.example",
        "srv-submissions": "0 1 465 mx1.host.example", "srv-pop3s": "0 0 0 .", "srv-imap": "0 0 0 .",
        "srv-pop3": "0 0 0 .",
    }
    assert not [one for one in records.expected(NAME, OURS) if one.key == "proof"]
    assert len({one.key for one in found}) == len(found)


def judged(key: str, *values: str, error: str = "", mx: tuple[str, ...] = (), nested: int = 0, addresses=ADDRESSES):
    """The row of one record where the DNS says this of it; and all rows."""
    wanted = records.expected(NAME, OURS, token="t0ken", proof_required=True)
    record = next(one for one in wanted if one.key == key)
    answers = {(NAME, "MX"): Answer(mx), (record.name, record.type): Answer(values, error)}
    rows = verdicts.judge(wanted, Found(answers, addresses, nested), OURS)
    return next(row for row in rows if row.record.key == key), rows


@pytest.mark.parametrize(("key", "values", "verdict", "words"), [
    ("mx", (), "nothing", "Add it at your DNS provider"),
    ("mx", ("10 mx1.host.example", "20 mx2.host.example"), "same", ""),
    ("mx", ("5 mx2.host.example", "5 mx1.host.example"), "same", ""),
    ("mx", ("10 mx1.host.example",), "different", "mx2.host.example is missing"),
    ("mx", ("10 mail.acme.example",), "same", ""),
    ("mx", ("10 mx.old.example",), "different", "Mail goes to mx.old.example"),
    ("mx", ("10 mx1.host.example", "20 mx.old.example"), "conflicts", "Some mail goes to mx.old.example"),
    ("mx", ("0 .",), "different", "takes no mail at all"),
    ("mx", ("0 .", "10 mx1.host.example"), "conflicts", "takes no mail at all"),
    ("spf", (), "nothing", "may take its mail for forged"),
    ("spf", ("v=spf1 include:_spf.letters.example ~all",), "different", "Our servers aren't in it"),
    ("spf", ("v=spf1 a:mx1.host.example ~all", "v=spf1 mx ~all"), "conflicts", "There are 2 SPF records"),
    ("spf", ("v=spf1 a:mx1.host.example include:x.example -all",), "same", ""),
    ("spf", ("v=spf1 +all",), "same", "anybody in the world"),
    ("spf", ("v=spf1 " + "a" * 3000 + "…",), "conflicts", "so long that no receiver"),
    ("dmarc", (), "nothing", "Add it"),
    ("dmarc", ("v=DMARC1; p=reject; rua=mailto:x@acme.example",), "same", "Stricter than ours. Keep it."),
    ("dmarc", ("V=DMARC1;P=None",), "same", ""),
    ("dmarc", ("v=DMARC1",), "same", ""),
    ("dmarc", ("v=DMARC1; p=rejct",), "different", "p=rejct is none of"),
    ("dmarc", ("v=DMARC1; p=none", "v=DMARC1; p=reject"), "conflicts", "Keep one"),
    ("proof", ("posthouse-proof=t0ken", "posthouse-proof=other"), "same", ""),
    ("proof", ("posthouse-proof=other",), "different", "another claim"),
    ("proof", ("posthouse-proof=t0kenx",), "different", "another claim"),
    ("tls-rpt", ("v=TLSRPTv1;rua=mailto:x@acme.example",), "same", ""),
    ("autoconfig", (), "nothing", "set themselves up"),
    ("autoconfig", ("mx1.host.example",), "same", ""),
    ("autoconfig", ("autoconfig.old.example",), "different", "leads elsewhere"),
    ("srv-submissions", ("5 0 465 mx1.host.example",), "same", ""),  # weight and priority are the owner's
    ("srv-submissions", ("0 1 587 mx1.host.example",), "different", "leads elsewhere"),
])
def test_verdict_and_what_to_do(key, values, verdict, words):
    addresses = {**ADDRESSES, "mail.acme.example": ("203.0.113.7",), "mx.old.example": ("198.51.100.1", "203.0.113.7")}
    row, _ = judged(key, *values, addresses=addresses)
    assert row.verdict == verdict
    assert words in str(row.sentence) and (words or not str(row.sentence))


def test_a_domain_below_another_has_that_ones_dmarc():
    wanted = records.expected("a.shop.acme.example", OURS)
    names = {name for name, _ in verdicts.questions(wanted) if name.startswith("_dmarc")}
    assert names == {f"_dmarc.{each}" for each in ("a.shop.acme.example", "shop.acme.example", "acme.example")}
    assert len(verdicts.questions(records.expected("a." * 100 + "example", OURS))) <= len(wanted) + 3
    answers = {("_dmarc.a.shop.acme.example", "TXT"): Answer()}
    above = {("_dmarc.acme.example", "TXT"): Answer(("v=DMARC1; p=reject",))}
    for extra, verdict in ((above, "same"), ({}, "nothing")):
        rows = verdicts.judge(wanted, Found(answers | extra), OURS)
        row = next(row for row in rows if row.record.key == "dmarc")
        assert row.verdict == verdict and ("acme.example holds" in str(row.sentence)) is (verdict == "same")


def test_a_host_of_which_the_dns_tells_nothing_is_not_somebody_elses():
    def said(*values: str, addresses):
        row, rows = judged("mx", *values, addresses=addresses)
        wanted = {(NAME, "MX"): Answer(values)}
        return row.verdict.value, verdicts.receives(rows, Found(wanted, addresses), OURS)

    vanity, old = {"mail.acme.example": ("203.0.113.7",)}, {"mx.old.example": ("198.51.100.1",)}
    assert said("10 mail.acme.example", addresses=ADDRESSES | vanity) == ("same", True)
    assert said("10 mail.acme.example", addresses=ADDRESSES) == ("unreachable", None)
    assert said("10 mail.acme.example", addresses=vanity) == ("unreachable", None), "nor where we are"
    assert said("10 mail.acme.example", addresses=ADDRESSES | {"mail.acme.example": ()}) == ("different", False)
    assert said("10 mail.acme.example", "10 mx.old.example", addresses=ADDRESSES | old) == ("different", False)
    assert said("10 mx1.host.example", "20 mail.acme.example", addresses=ADDRESSES) == ("unreachable", True)
    assert said("0 .", addresses={}) == ("different", False)


def test_what_stands_above_and_does_not_answer_is_not_missing():
    wanted = records.expected("shop.acme.example", OURS)
    answers = {("_dmarc.shop.acme.example", "TXT"): Answer(), ("_dmarc.acme.example", "TXT"): Answer(error="silent")}
    rows = verdicts.judge(wanted, Found(answers), OURS)
    assert next(row for row in rows if row.record.key == "dmarc").verdict == "unreachable"
    networks, _ = judged("spf", "v=spf1 ip4:203.0.113.0/24 -all", addresses={})
    assert networks.verdict == "unreachable", "our own address isn't known"


def test_a_sentence_is_translated_before_its_facts_are_filled_in():
    row, _ = judged("mx", "10 {x}.example")
    japanese = {row.sentence.text: "メールは{others}に届きます。"}
    assert row.sentence.said(japanese.get) == "メールは{x}.exampleに届きます。"


def test_no_answer_is_never_a_missing_record():
    for record in records.expected(NAME, OURS, token="t0ken"):
        row, _ = judged(record.key, error="its name servers fail")
        assert (row.verdict, row.look) == (Verdict.UNREACHABLE, "warn")
        assert "its name servers fail" in str(row.sentence)
    row, rows = judged("mx", error="no answer")
    assert verdicts.receives(rows, Found({}, ADDRESSES), OURS) is None


def test_the_record_to_copy_keeps_what_is_there():
    row, _ = judged("spf", "v=spf1 include:_spf.letters.example ~all")
    assert row.record.values == ("v=spf1 a:mx1.host.example include:_spf.letters.example ~all",)
    row, _ = judged("dmarc", "v=DMARC1; p=reject")
    assert row.record.values == ("v=DMARC1; p=reject",)
    row, _ = judged("spf", "v=spf1 mx " + " ".join(f"include:{n}.example" for n in range(9)) + " ~all", nested=2)
    assert row.verdict is Verdict.DIFFERENT
    assert "ip4:203.0.113.7" in row.record.values[0]
    row, _ = judged("spf", "v=spf1 a:mx1.host.example " + " ".join(f"include:{n}.x" for n in range(9)), nested=2)
    assert row.verdict is Verdict.CONFLICTS and "asks the DNS 12 times" in str(row.sentence)


RIGHT = {
    (NAME, "MX"): Answer(("10 mx1.host.example", "20 mx2.host.example")),
    (NAME, "TXT"): Answer(("v=spf1 a:mx1.host.example ~all",)),
    (f"_dmarc.{NAME}", "TXT"): Answer(("v=DMARC1; p=none",)),
}


@pytest.mark.parametrize(("life", "answers", "look", "words"), [
    ("pending", {}, "off", "Waiting for proof"),
    ("pending", {(f"_posthouse.{NAME}", "TXT"): Answer(("posthouse-proof=t0ken",))}, "bad", "Can't be proved"),
    ("active", {}, "off", "Not looked up yet"),
    ("active", RIGHT, "good", "Sends and receives"),
    ("active", RIGHT | {(NAME, "TXT"): Answer()}, "warn", "Receives; others may refuse what it sends"),
    ("active", RIGHT | {(NAME, "MX"): Answer()}, "bad", "Doesn't receive"),
    ("active", RIGHT | {(NAME, "MX"): Answer(("10 mx.old.example",))}, "bad", "Doesn't receive"),
    ("active", RIGHT | {(NAME, "MX"): Answer(("10 mx1.host.example", "20 old.example"))}, "warn",
     "Sends; receives only part"),
    ("active", RIGHT | {(NAME, "MX"): Answer(("10 old.example", "20 mx1.host.example"))}, "bad", "Doesn't receive"),
    ("active", RIGHT | {(NAME, "MX"): Answer(error="SERVFAIL")}, "warn", "Its DNS doesn't answer"),
    ("warning", RIGHT, "warn", "The proof is missing"),
    ("suspended", RIGHT, "bad", "Receives, doesn't send"),
])
def test_overall(life, answers, look, words):
    found = Found(answers, {**ADDRESSES, "mx.old.example": ("198.51.100.1",), "old.example": ("198.51.100.2",)})
    wanted = records.expected(NAME, OURS, token="t0ken", proof_required=life != "active")
    rows = verdicts.judge(wanted, found, OURS)
    said = verdicts.overall(life, rows, verdicts.receives(rows, found, OURS))
    assert (said.look, str(said.words)) == (look, words)
    for row in rows:
        assert "left" not in str(row.sentence), "on a narrow screen, and in a terminal, nothing stands there"


@settings(max_examples=50)
@given(st.dictionaries(
    st.sampled_from(sorted(verdicts.questions(records.expected(NAME, OURS, token="t0ken")))),
    st.builds(Answer, st.lists(st.text(), max_size=4).map(tuple), st.sampled_from(["", "SERVFAIL"])),
))
def test_no_answer_whatever_it_is_breaks_a_page(answers):
    found = Found(answers)
    rows = verdicts.judge(records.expected(NAME, OURS, token="t0ken"), found, OURS)
    assert str(verdicts.overall("active", rows, verdicts.receives(rows, found, OURS)).words)
    assert [str(row.sentence) for row in rows]
