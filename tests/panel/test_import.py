"""Many mailboxes by a CSV: all or none, hashes from elsewhere, and back into the same file."""

import contextlib
import csv
import io
import json
import os
import stat
import threading

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from panel.mailboxes import foreign, importing, passwords, sheet
from panel.mailboxes.importing import import_mailboxes
from panel.mailboxes.models import Address, Credential, Mailbox
from panel.rules.status import Status
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry, Tenant, User
from panel.tenants.services import create_plan
from tests.support import world

PASSWORD = "pässword horse"
# Made by doveadm pw, crypt(3), Django and passlib: none of them by us.
HASHES = [
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$Dv6O+eONoocYfdJ8STZrvA$YyBe/7Bf3nclBoSTJSMFp7TIvNvqWtGQQe2XUxulKKI",
    "{BLF-CRYPT}$2y$05$N3x3iEH7R6zvQh7WaUpdYuJL7OePYOYveHCgydscqgd8q8V9yRCze",
    "{SHA512-CRYPT}$6$awpTYQyFroFHzntM$.Wjk5/oAROkXGqCxfSbCWI4aKsVU/5u3/3xhU7hvi2.zHpgtQswEeblLyisCvSZn76Weyh74vE/v2rsz"
    "EQM8Y0",
    "{PBKDF2}$1$Y55hkinwtWCBl0uv$5000$aafde15b0a8e4540d51f92149599cd7db78471ea",
    "$6$rounds=8000$saltysalt$7WEQWyaj7jfJxuZqOlJgeMZNOlvWLzkaSiiWoTEkONxnuMYikOKOG3VLYC1sc0pl.3BGHHN9MEAUPqaaAac2K0",
    "$2y$05$abcdefghijklmnopqrstuuhI5OkmtXeU4o4O7kWnJ5ep/uT8Fi7Zu",
    "bcrypt$$2y$05$abcdefghijklmnopqrstuuhI5OkmtXeU4o4O7kWnJ5ep/uT8Fi7Zu",
    "argon2$argon2id$v=19$m=65536,t=3,p=1$Dv6O+eONoocYfdJ8STZrvA$YyBe/7Bf3nclBoSTJSMFp7TIvNvqWtGQQe2XUxulKKI",
    "$pbkdf2-sha256$2000$YyylFKLUWquVkrKW8p6zVg$.1ef4G3aVo6dpX0bgRvfSe.YNAy1uUrvxCtJSaS9vJU",
    "$pbkdf2-sha512$2000$vPe.t3YuJUQo5TzHWCvFuA$LvPRuFJ4wDxf3zdjzThyhkOOHT/amReTkGD56UmX7ZQo/t7Bxx/2unDFx2BCJtQMfh.9Uty"
    "gzdENvte9bY3Cvg",
    "pbkdf2_sha256$3000$saltandpepper$w4iUm1ZxWehiMolHqVe5+HbtBxkLnGyGfRQIdamwm1c=",
    "pbkdf2_sha1$3000$salt$Q4Gtgqa+0egiegrmLlWrMzXv9yQ=",
]


# Hashes


@pytest.mark.once("sqlite")
@pytest.mark.parametrize("text", HASHES)
def test_a_hash_from_elsewhere_opens_with_its_password_alone(text):
    stored = foreign.read(text)
    assert len(stored) <= Credential._meta.get_field("secret").max_length
    assert passwords.verify_main(PASSWORD, stored) and not passwords.is_ours(stored)
    for wrong in ("", "password horse", PASSWORD + "x", "x" * 20_000, "nul\0"):
        assert not passwords.verify_main(wrong, stored)
    # What is exported is taken again, as the same.
    assert foreign.read(foreign.write(stored)) == stored


@pytest.mark.parametrize(("text", "words"), [
    ("{SSHA512}abc", "hashes of SSHA512 are not taken"),
    ("{PLAIN}secret", "hashes of PLAIN are not taken"),
    ("{SHA512-CRYPT.B64}JDYk", "hashes of SHA512-CRYPT.B64 are not taken"),
    ("{BLF-CRYPT}$6$rounds=8000$saltysalt$7WEQWyaj7jfJxuZqOlJgeMZNOlvWLzkaSiiWoTEkONxnuMYikOKOG3VLYC1sc0pl."
     "3BGHHN9MEAUPqaaAac2K0", "one of sha512-crypt, not of BLF-CRYPT"),
    ("$1$md5$abcdefghijklmnopqrstuv", "not understood"),
    ("$5$rounds=5000$x$y", "not understood"),
    ("$y$j9T$abc$def", "not understood"),
    ("5f4dcc3b5aa765d61d8327deb882cf99", "not understood"),
    ("$2y$05$short", "the bcrypt hash is not whole"),
    ("$6$salt$short", "the sha512-crypt hash is not whole"),
    ("$argon2i$v=19$m=65536,t=3,p=1$Dv6O+eONoocYfdJ8STZrvA$YyBe/7Bf3nclBoSTJSMFp7TIvNvqWtGQQe2XUxulKKI", "argon2id"),
    ("$argon2id$v=19$m=65536,t=3,p=1$Dv6O", "not whole"),
    ("pbkdf2_sha512$3000$salt$Q4Gtgqa+0egiegrmLlWrMzXv9yQ=", "pbkdf2 hash is not whole"),
    ("pbkdf2_sha256$3000$salt$Q4Gtgqa+0egiegrmLlWrMzXv9yQ=", "pbkdf2 hash is not whole"),
    # What no password opens, or what isn't what it says.
    ("$6$rounds=10$saltysalt$7WEQWyaj7jfJxuZqOlJgeMZNOlvWLzkaSiiWoTEkONxnuMYikOKOG3VLYC1sc0pl."
     "3BGHHN9MEAUPqaaAac2K0", "the sha512-crypt hash is not whole"),
    ("$6$rounds=\u0668\u0660\u0660\u0660$saltysalt$7WEQWyaj7jfJxuZqOlJgeMZNOlvWLzkaSiiWoTEkONxnuMYikOKOG3VLYC1sc0pl."
     "3BGHHN9MEAUPqaaAac2K0", "a character that none has"),
    ("$6$\x1b[31m$7WEQWyaj7jfJxuZqOlJgeMZNOlvWLzkaSiiWoTEkONxnuMYikOKOG3VLYC1sc0pl.3BGHHN9MEAUPqaaAac2K0",
     "a character that none has"),
    ("$6$s\u00e4ltysalt$7WEQWyaj7jfJxuZqOlJgeMZNOlvWLzkaSiiWoTEkONxnuMYikOKOG3VLYC1sc0pl.3BGHHN9MEAUPqaaAac2K0",
     "a character that none has"),
    ("$2y$\u0660\u0665$abcdefghijklmnopqrstuuhI5OkmtXeU4o4O7kWnJ5ep/uT8Fi7Zu", "a character that none has"),
    ("pbkdf2_sha256$3000$salt\x1bpepper$w4iUm1ZxWehiMolHqVe5+HbtBxkLnGyGfRQIdamwm1c=", "a character that none has"),
    ("$argon2id$v=19$m=65536,t=3,p=1$Dv6O+eONoocYfdJ8STZrvA$!!!!e/7Bf3nclBoSTJSMFp7TIvNvqWtGQQe2XUxulKKI", "not whole"),
    ("$argon2id$v=19$m=-1,t=3,p=1$Dv6O+eONoocYfdJ8STZrvA$YyBe/7Bf3nclBoSTJSMFp7TIvNvqWtGQQe2XUxulKKI", "odd"),
    ("$argon2id$v=19$m=8,t=3,p=4$Dv6O+eONoocYfdJ8STZrvA$YyBe/7Bf3nclBoSTJSMFp7TIvNvqWtGQQe2XUxulKKI", "odd"),
    ("$argon2id$v=19$m=65536,t=0,p=1$Dv6O+eONoocYfdJ8STZrvA$YyBe/7Bf3nclBoSTJSMFp7TIvNvqWtGQQe2XUxulKKI", "odd"),
    # What each login would cost.
    ("$2y$17$abcdefghijklmnopqrstuuhI5OkmtXeU4o4O7kWnJ5ep/uT8Fi7Zu", "takes 17 as its cost, more than 13"),
    ("$6$rounds=99999999$saltysalt$7WEQWyaj7jfJxuZqOlJgeMZNOlvWLzkaSiiWoTEkONxnuMYikOKOG3VLYC1sc0pl."
     "3BGHHN9MEAUPqaaAac2K0", "99999999 rounds"),
    ("pbkdf2_sha256$99999999$saltandpepper$w4iUm1ZxWehiMolHqVe5+HbtBxkLnGyGfRQIdamwm1c=", "99999999 rounds"),
    ("$argon2id$v=19$m=4194304,t=3,p=1$Dv6O+eONoocYfdJ8STZrvA$YyBe/7Bf3nclBoSTJSMFp7TIvNvqWtGQQe2XUxulKKI",
     "KiB of memory"),
    ("$argon2id$v=19$m=65536,t=900,p=1$Dv6O+eONoocYfdJ8STZrvA$YyBe/7Bf3nclBoSTJSMFp7TIvNvqWtGQQe2XUxulKKI", "passes"),
    ("x" * 5000, "longer than"),
])
def test_other_hashes_are_refused_and_so_is_what_would_slow_down_logins(text, words):
    with pytest.raises(foreign.BadHash, match=words):
        foreign.read(text)


def test_our_own_hash_is_ours_after_an_import_as_well():
    stored = passwords.hash_main(PASSWORD)
    assert passwords.is_ours(stored) and foreign.read(foreign.write(stored)) == stored


# The file


@pytest.fixture
def file(tmp_path):
    """Writes the file of these lines."""
    path = tmp_path / "people.csv"

    def write(*lines, head="address,password,hash,quota,name"):
        path.write_bytes(b"".join(
            (line if isinstance(line, bytes) else line.encode()) + b"\r\n" for line in (head, *lines)
        ))
        return path

    return write


def refused(path, tenant, *words, **options):
    with pytest.raises(ServiceError) as error:
        import_mailboxes(path, tenant, actor=None, **options)
    for word in words:
        assert word in str(error.value)
    assert not Mailbox.objects.exists() and not AuditEntry.objects.exists() and not User.objects.exists()
    return str(error.value)


def test_each_row_becomes_a_mailbox_that_can_log_in(file, tenant, domain, shared, traces):
    path = file(
        f"Ann@Demo.test,{PASSWORD},,5 GB,Ann Archer",
        f'bob@isp.test,,"{HASHES[1]}",500M,"Bob, the ""Builder"""',
        f'carl@demo.test,,"{HASHES[0]}",,',
        "",
    )
    seen = traces()
    done = import_mailboxes(path, tenant, actor=None, ip="192.0.2.1")
    assert (done.mailboxes, done.domains, done.without_password) == (3, ("demo.test", "isp.test"), 0)
    ann, bob, carl = (Mailbox.objects.get(address__local_part=name) for name in ("ann", "bob", "carl"))
    assert (ann.quota_bytes, bob.quota_bytes, carl.quota_bytes) == (5 * 1024**3, 500 * 1024**2, None)
    assert (bob.tenant, bob.domain_name, bob.local_part) == (tenant, "isp.test", "bob")
    assert (ann.name, bob.name, bob.person.name) == ("Ann Archer", 'Bob, the "Builder"', 'Bob, the "Builder"')
    for mailbox in (ann, bob, carl):
        assert mailbox.address.tenant == tenant and mailbox.person.kind == "person"
        assert passwords.verify_main(PASSWORD, mailbox.credentials.get(kind="main").secret)
    assert seen.actions == ["mailbox.created"] * 3 and seen.domains == {"demo.test", "isp.test"}
    assert AuditEntry.objects.filter(subject_type="mailbox", subject_id=ann.pk, tenant=tenant).count() == 1


def test_all_or_none_and_every_bad_line_is_named(file, tenant, domain, mailbox, other_tenant):
    world.domain("other.test", other_tenant)
    world.domain("closed.test", tenant, status=Status.CLOSED)
    world.domain_alias("alias.test", domain)
    good = f"ok@demo.test,{PASSWORD},,,"
    path = file(
        good,
        f"shop@demo.test,{PASSWORD},,,", f"x@elsewhere.test,{PASSWORD},,,", f"x@other.test,{PASSWORD},,,",
        f"x@closed.test,{PASSWORD},,,", f"x@alias.test,{PASSWORD},,,", f"x+y@demo.test,{PASSWORD},,,",
        f"no address,{PASSWORD},,,", "a@demo.test,short,,,", "b@demo.test,password123,,,", "c@demo.test,,,,",
        f"d@demo.test,{PASSWORD},{HASHES[5]},,", "e@demo.test,,{MD5}x,,", f"f@demo.test,{PASSWORD},,much,",
        f"g@demo.test,{PASSWORD},,,a\u202eb", f"OK@demo.test,{PASSWORD},,,", f"h@demo.test,{PASSWORD}",
        f"i@demo.test,{passwords.APP_PREFIX}0123456789,,,",
    )
    with pytest.raises(ServiceError) as error:
        import_mailboxes(path, tenant, actor=None)
    head, *lines = str(error.value).splitlines()
    assert head == "Nothing is imported: 17 lines can't be used."
    assert [line.partition(":")[0] for line in lines] == [f"line {number}" for number in range(3, 20)]
    for number, words in (
        (3, "taken already"), (4, "isn't hosted here"), (5, "not a domain of Demo"), (6, "is closed"),
        (7, "stands for demo.test"), (8, "subaddress"), (10, "too short"), (12, "neither a password nor a hash"),
        (13, "a password and a hash"), (14, "hashes of MD5 are not taken"), (15, "is no size"),
        (16, "direction character"), (17, "stands in line 2 already"), (18, "it has 2 values"), (19, "app passwords"),
    ):
        assert words in lines[number - 3], (number, lines[number - 3])
    assert Mailbox.objects.count() == 1 and not AuditEntry.objects.exists()


def test_many_bad_lines_are_counted_and_the_first_are_named(file, tenant, domain):
    path = file(*(f"x{number}@demo.test,short,,," for number in range(sheet.MOST_ERRORS + 10)))
    said = refused(path, tenant, "60 lines can't be used", "line 2: ", "and 10 more.")
    assert said.count("\n") == sheet.MOST_ERRORS + 1


@pytest.mark.parametrize(("content", "words"), [
    (b"", "holds no mailbox"),
    (b"address,password\r\n", "holds no mailbox"),
    (b"ann@demo.test,secret words here\r\n", "the first line names the columns"),
    (b"address,passwort\r\n", "column 'passwort' is unknown"),
    (b"address,name,name\r\n", "column 'name' stands there twice"),
    ("address,password,name\r\na@demo.test,secret words,Jürgen\r\n".encode("latin-1"), "line 2: it is not UTF-8"),
    ("address,password\r\n".encode("utf-16"), "line 1: it"),
    (b"address,password\r\na@demo.test,sec\0ret\r\n", "line 2: it holds a NUL byte"),
    (b"address,password\r\n" + b"a" * 10_000, "line 2: it is longer than 8192 bytes"),
    (b'address,password\r\na@demo.test,"open' + b"\r\nx@demo.test,y" * 50, "line 2: a double quote is opened and not"),
    (b'address,password\r\na@demo.test,"open', "line 2: the row is not understood"),
    (b'address,password\r\na@demo.test,"a"b"c"\r\n', "line 2: the row is not understood"),
])
def test_what_is_no_such_file_is_a_sentence_with_the_line(tmp_path, tenant, domain, content, words):
    path = tmp_path / "people.csv"
    path.write_bytes(content)
    refused(path, tenant, words)


def test_a_file_of_any_size_costs_bounded_memory(tmp_path, tenant, domain):
    """A gigabyte without a line break, and one of more rows than are taken; sparse, so that they cost no disk."""
    path = tmp_path / "people.csv"
    with path.open("wb") as file:
        file.write(b"address,password\r\nx")
        file.truncate(1024**3)
    refused(path, tenant, "line 2: it is longer than")
    with path.open("wb") as file:
        file.write(b"address,password\r\n")
        for number in range(sheet.MOST_ROWS + 1):
            file.write(b"x%d@demo.test,an unusual one\r\n" % number)
    refused(path, tenant, "holds more than 20,000 mailboxes: split it")
    refused(tmp_path / "missing.csv", tenant, "can't be read: No such file")


@pytest.mark.once("sqlite")
@pytest.mark.parametrize("line", [b"\n", b"," * 4000 + b"\n"], ids=["empty lines", "empty cells"])
def test_a_file_that_goes_on_for_ever_ends_with_a_sentence(line, tmp_path, tenant):
    """What holds no mailbox isn't counted as one: lines and bytes are bounded for themselves."""
    path = tmp_path / "endless.csv"
    os.mkfifo(path)
    written = []

    def write():
        with open(path, "wb", buffering=0) as pipe, contextlib.suppress(BrokenPipeError):
            pipe.write(b"address,password,name\n")
            while True:
                written.append(pipe.write(line * 200))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    with pytest.raises(ServiceError, match="split it"):
        import_mailboxes(path, tenant, actor=None)
    writer.join(10)
    assert not writer.is_alive()
    assert sum(written) < 2 * sheet.MOST_BYTES



def test_a_byte_order_mark_and_columns_in_any_order_are_taken(tmp_path, tenant, domain):
    path = tmp_path / "people.csv"
    path.write_bytes(f"\ufeffname,Address,password\nÄnne,a@demo.test,{PASSWORD}\n".encode())
    import_mailboxes(path, tenant, actor=None)
    assert Mailbox.objects.get().name == "Änne"


def test_a_check_makes_and_hashes_nothing(file, tenant, domain, monkeypatch):
    monkeypatch.setattr(passwords, "hash_main", None)
    done = import_mailboxes(file(f"a@demo.test,{PASSWORD},,,"), tenant, check=True, actor=None)
    assert done.mailboxes == 1 and not Mailbox.objects.exists()
    tenant.plan = create_plan(name="Tiny", mailboxes=1, actor=None)
    tenant.save(update_fields=["plan"])
    AuditEntry.objects.all().delete()
    path = file(f"a@demo.test,{PASSWORD},,,", f"b@demo.test,{PASSWORD},,,")
    refused(path, tenant, "The plan Tiny allows 1 mailboxes; Demo has 0, and 2 more are asked for.", check=True)


def test_the_plans_numbers_hold(file, tenant, domain):
    tenant.plan = create_plan(name="Tiny", storage_bytes=10 * 1024**3, actor=None)
    tenant.save(update_fields=["plan"])
    AuditEntry.objects.all().delete()
    path = file(f"a@demo.test,{PASSWORD},,6 GB,", f"b@demo.test,{PASSWORD},,5 GB,")
    refused(path, tenant, "allows 10 GB of storage; the quotas of Demo take nothing of it, and 11 GB more are asked")
    refused(file(f"a@demo.test,{PASSWORD},,,"), tenant, "give the mailbox a quota")
    import_mailboxes(file(f"a@demo.test,{PASSWORD},,10 GB,"), tenant, actor=None)


def test_rows_without_a_password_are_taken_when_asked_for(file, tenant, domain):
    path = file("a@demo.test,,,,")
    refused(path, tenant, "neither a password nor a hash; with --without-passwords it may")
    done = import_mailboxes(path, tenant, without_passwords=True, actor=None)
    assert done.without_password == 1 and not Credential.objects.exists()
    call_command("mailbox", "password", "a@demo.test", stdout=io.StringIO())
    assert Credential.objects.count() == 1


def test_hashing_comes_before_the_transaction_and_rows_cost_no_query_each(file, tenant, domain, monkeypatch):
    depths = []
    hash_all, write_all = importing._hash, importing._write_all

    def noting(work):
        def noted(*arguments):
            depths.append(len(connection.savepoint_ids))
            return work(*arguments)

        return noted

    monkeypatch.setattr(importing, "_hash", noting(hash_all))
    monkeypatch.setattr(importing, "_write_all", noting(write_all))
    outer = len(connection.savepoint_ids)
    counts = []
    for rows in (2, 40):
        plain = f"p{rows}@demo.test,{PASSWORD},,,"
        path = file(plain, *(f"x{rows}-{number}@demo.test,,{HASHES[5]},," for number in range(rows)))
        with CaptureQueriesContext(connection) as asked:
            import_mailboxes(path, tenant, actor=None)
        counts.append(len(asked))
    assert counts[0] == counts[1], counts
    assert depths == [outer, outer + 1] * 2


@pytest.mark.django_db(transaction=True)
def test_an_address_taken_meanwhile_fails_all_of_it(standard_plan, file, monkeypatch):
    tenant = world.tenant("Demo")
    world.domain("demo.test", tenant)
    path = file(f"a@demo.test,{PASSWORD},,,", f"b@demo.test,{PASSWORD},,,")
    real = importing._hash

    def hash_slowly(rows, tell):
        world.mailbox("b@demo.test")
        return real(rows, tell)

    monkeypatch.setattr(importing, "_hash", hash_slowly)
    with pytest.raises(ServiceError, match=r"(?s)1 line can't be used.*line 3: The address b@demo.test is taken"):
        import_mailboxes(path, tenant, actor=None)
    assert list(Address.objects.values_list("local_part", flat=True)) == ["b"]


# There and back


def test_what_is_exported_is_imported_as_the_same(file, tmp_path, tenant, domain, other_tenant):
    """And Dovecot's spellings survive it."""
    lines = [
        f'm{number}@demo.test,,"{text}",{number + 1} GB,"Name, {number}"' for number, text in enumerate(HASHES)
    ]
    odd = [f'"""a@b, c""@demo.test",{PASSWORD},,,', f'"""d ""@demo.test",{PASSWORD},,,']
    import_mailboxes(file(*lines, f"=z@demo.test,{PASSWORD},,1025,=1+1", *odd), tenant, actor=None)
    out = io.StringIO()
    call_command("mailbox", "export", "--tenant", "Demo", stdout=out)
    plain = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert not any(row["hash"] or row["password"] for row in plain) and len(plain) == len(HASHES) + 3
    assert ("'=z@demo.test", "'=1+1") in [(row["address"], row["name"]) for row in plain], "no formula for who opens it"
    path = tmp_path / "exported.csv"
    said = io.StringIO()
    call_command("mailbox", "export", "--tenant", "Demo", "--with-hashes", "--output", str(path), stdout=said)
    assert "15 mailboxes of Demo" in said.getvalue() and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert AuditEntry.objects.filter(action="tenant.hashes_exported").exists()
    with pytest.raises(CommandError, match="File exists"):
        call_command("mailbox", "export", "--tenant", "Demo", "--output", str(path))

    def told():
        rows = Mailbox.objects.order_by("address__local_part")
        return [(str(row), row.name, row.quota_bytes, row.credentials.get().secret) for row in rows]

    before = told()
    Mailbox.objects.all().delete()
    Address.objects.all().delete()
    import_mailboxes(path, tenant, actor=None)
    assert told() == before
    Mailbox.objects.all().delete()
    Address.objects.all().delete()
    path.write_text(out.getvalue())
    assert import_mailboxes(path, tenant, without_passwords=True, actor=None).without_password == len(HASHES) + 3


def test_hashes_go_into_the_file_alone_also_when_json_is_told(file, tmp_path, tenant, domain):
    import_mailboxes(file(f"a@demo.test,{PASSWORD},,,"), tenant, actor=None)
    path = tmp_path / "exported.csv"
    out = io.StringIO()
    call_command(
        "mailbox", "export", "--tenant", "Demo", "--with-hashes", "--output", str(path), "--json", stdout=out
    )
    assert json.loads(out.getvalue()) == {"tenant": "Demo", "mailboxes": 1, "output": str(path)}
    assert "{ARGON2ID}" in path.read_text() and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_command_tells_what_it_did(file, tenant, domain):
    path = file(f"a@demo.test,{PASSWORD},,,")
    out = io.StringIO()
    call_command("mailbox", "import", str(path), "--tenant", "Demo", "--check", stdout=out)
    assert out.getvalue().endswith("1 mailbox can be imported into Demo.\n")
    out = io.StringIO()
    call_command("mailbox", "import", str(path), "--tenant", "Demo", "--json", stdout=out)
    assert json.loads(out.getvalue()) == {
        "tenant": "Demo", "mailboxes": 1, "domains": ["demo.test"], "checked_only": False, "without_password": 0,
    }
    assert Tenant.objects.get().addresses.count() == 1
    with pytest.raises(CommandError, match=r"line 2: The address a@demo\.test is taken already") as again:
        call_command("mailbox", "import", str(path), "--tenant", "Demo")
    assert again.value.returncode == 1
