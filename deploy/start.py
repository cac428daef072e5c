"""What `deploy/run` starts: the panel, the mailserver and Dovecot of one machine, until Ctrl-C.

Makes what is missing (under root the users that everything runs as; folders, keys,
certificate, tables, on the first start the demo), starts the programs, waits until they
answer, sends a first message the way a mail client does, reads it back, and says `ready`.
Without Dovecot everything but reading works. Should it be killed, they end as well.

SIGUSR2 has another mailserver take over and the panel's workers replaced, without a lost
connection or request; `deploy/run --restart` prepares an update and sends it.
"""

import argparse
import email.utils
import fcntl
import imaplib
import os
import resource
import shlex
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "panel.settings")

from mailserver import kernel  # noqa: E402
from panel import environment, system_users  # noqa: E402
from panel.environment import BadSetting, Environment, Listen  # noqa: E402
from panel.operations import dovecot  # noqa: E402
from panel.system_users import SystemUsers, UsersMissing  # noqa: E402

Programs = dict[str, subprocess.Popen[bytes]]

ANSWER_WITHIN_S = 60.0
ARRIVE_WITHIN_S = 30.0
STOP_WITHIN_S = 45.0
OPEN_FILES = 65536  # as in deploy/systemd: a session is one, and the usual default is 1,024
RESTART = threading.Event()  # set by SIGUSR2


class CannotStart(Exception):
    """Why the start is not possible: a sentence that says what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="deploy/run",
        description="Run Posthouse on this machine: the panel and the mailserver. The first start makes a demo "
        "(an administrator, the tenant Demo, two mailboxes) and prints its passwords. Ctrl-C stops everything.",
        epilog="Settings come from the environment; deploy/env.example explains each. All state is kept under var/, "
        "or in the folder that POSTHOUSE_DATA names.",
    )
    parser.add_argument("--no-demo", action="store_true", help="don't make the demo on a first start")
    parser.add_argument(
        "--restart", action="store_true",
        help="have the running one start its programs anew, as after an update, without a lost connection or request",
    )
    options = parser.parse_args()
    # SIGINT also where a script's "&" made us ignore it; SIGHUP when the terminal is closed, but not under nohup.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    signal.signal(signal.SIGUSR2, lambda *_: RESTART.set())
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        settings = environment.read()
        users = _leave_root(settings)
        if options.restart:
            return _have_restarted(settings)
        with _only_one(settings):
            return _run(settings, users, demo=not options.no_demo)
    except (BadSetting, CannotStart, UsersMissing) as error:
        print(f"posthouse: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _leave_root(settings: Environment) -> SystemUsers | None:
    """Under root: work as posthouse from here on, who owns the data folder. Raises CannotStart, UsersMissing."""
    if os.geteuid() != 0:
        return None
    users = system_users.ensure()
    try:
        system_users.give(settings.data, users)
    except OSError as error:
        raise _cannot_write(settings, error) from None
    users.work_as()
    for path in (ROOT / "manage.py", Path(sys.executable).resolve(), settings.data):
        try:
            os.stat(path)
        except PermissionError:
            raise CannotStart(
                f"the user {system_users.SERVICE}, as whom root runs Posthouse, can't reach {path}: "
                "a folder above it is closed to others. Open it (chmod o+x), or choose another place"
                f"{' by POSTHOUSE_DATA' if path == settings.data else ''}."
            ) from None
    os.environ["HOME"] = str(settings.data)  # root's is closed to us
    return users


def _cannot_write(settings: Environment, error: OSError) -> CannotStart:
    return CannotStart(
        f"the data folder {settings.data} can't be written: {error.strerror}. "
        "Give this user the right to it, or set POSTHOUSE_DATA to another folder."
    )


@contextmanager
def _only_one(settings: Environment) -> Iterator[None]:
    """Hold the data folder's start lock. Raises CannotStart: taken, or the folder can't be written."""
    try:
        (settings.data / "run").mkdir(parents=True, exist_ok=True, mode=0o750)
        lock = os.open(settings.data / "run" / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise _cannot_write(settings, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(lock, 20).decode(errors="replace").strip()
        raise CannotStart(
            f"Posthouse is already running on {settings.data}, pid {pid}. "
            f"Stop it with Ctrl-C or `kill {pid}`, or set POSTHOUSE_DATA to another folder."
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    try:
        yield
    finally:
        os.close(lock)


def _run(settings: Environment, users: SystemUsers | None, *, demo: bool) -> int:
    reading = _may_read(settings)
    _check_port(settings.http, "POSTHOUSE_HTTP")
    with users.as_root() if users else nullcontext():
        for name, listens in (
            ("POSTHOUSE_MX", settings.mx),
            ("POSTHOUSE_SUBMISSION", settings.submission),
            ("POSTHOUSE_SUBMISSIONS", settings.submissions),
            ("POSTHOUSE_IMAPS", settings.imaps if reading else ()),
            ("POSTHOUSE_POP3S", settings.pop3s if reading else ()),
            ("POSTHOUSE_SIEVE", settings.sieve if reading else ()),
        ):
            for listen in listens:
                _check_port(listen, name)
    _say(f"keeping all state in {settings.data}")
    first, passwords = _prepare(settings, demo=demo)
    if passwords and not settings.postmaster:
        # In the demo, mail to postmaster and abuse reaches a person.
        os.environ["POSTHOUSE_POSTMASTER"] = "office@demo.test"
    if first:
        _say(f"the demo's passwords (kept in {settings.data / 'demo.txt'}):")
        for login, password in passwords.items():
            print(f"    {login:20} {password}", flush=True)
    programs: Programs = {}
    finishing: list[subprocess.Popen[bytes]] = []  # mailservers that were taken over from
    try:
        _start_all(settings, users, programs, reading=reading)
        _wait_until_all_answer(settings, programs)
        if passwords:
            if first or not _has_first_message(settings):
                _say(_send_first_message(settings, passwords, reading="dovecot" in programs))
            _print_examples(settings, passwords, reading="dovecot" in programs)
        print(f"ready: the panel is at {_panel_url(settings)}, Ctrl-C stops everything", flush=True)
        return _watch(settings, users, programs, finishing)
    finally:
        _stop(programs, finishing)
        if users and reading:
            with users.as_root():
                shutil.rmtree(dovecot.folder(settings), ignore_errors=True)


def _may_read(settings: Environment) -> bool:
    """Whether Dovecot can serve this installation; says what is missing if not."""
    if not dovecot.PROGRAM.exists():
        _say(f"without reading by IMAP and POP3: Dovecot is missing (apt-get install {dovecot.PACKAGES})")
        return False
    try:
        version = dovecot.rendered_version()
        dovecot.configuration(settings, dovecot.owners(), version)
    except dovecot.NoConfiguration as error:
        _say(f"without reading by IMAP and POP3: {error}")
        return False
    if missing := dovecot.missing_packages(version):
        _say(f"without reading by IMAP and POP3: Dovecot {version} needs more here (apt-get install {missing})")
        return False
    return True


def _start_all(settings: Environment, users: SystemUsers | None, programs: Programs, *, reading: bool) -> None:
    """Start the programs, under root each as its user; mailserver and Dovecot leave root by themselves."""
    python = [sys.executable, "-m"]
    panel = [
        *python, "gunicorn", "--bind", str(settings.http), "--workers", "2", "--threads", "4",
        "--log-level", "warning", "--no-control-socket", "--forwarded-allow-ips", "127.0.0.1,::1", "panel.wsgi",
    ]
    programs["mailserver"] = _start_mailserver(users)
    if users is None:
        programs["panel"] = _start(panel)
        if reading:
            programs["dovecot"] = _start([str(dovecot.PROGRAM), "-F", "-c", str(_write_dovecot(settings))])
        return
    with users.as_root():
        programs["panel"] = _start(panel, users.uid, users.gid, users.mail_gid)
        if reading:
            programs["dovecot"] = _start([str(dovecot.PROGRAM), "-F", "-c", str(_write_dovecot(settings))], 0, 0)


def _start_mailserver(users: SystemUsers | None, *options: str) -> subprocess.Popen[bytes]:
    # Told by an option: what the kernel knows of it is lost when the mailserver leaves root.
    command = [sys.executable, "-m", "mailserver", "--end-with", str(os.getpid()), *options]
    if users is None:
        return _start(command)
    with users.as_root():
        return _start([*command, "--drop"], 0, 0)


def _write_dovecot(settings: Environment) -> Path:
    try:
        return dovecot.write(settings, dovecot.owners())
    except OSError as error:
        raise CannotStart(f"{error.filename} can't be written: {error.strerror}.") from None


def _say(text: str) -> None:
    print(f"posthouse: {text}", flush=True)


def _check_port(listen: Listen, setting: str) -> None:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except PermissionError:
            raise CannotStart(
                f"port {listen.port} needs root. Set {setting} to a port above 1023, for example "
                f"{listen.host}:{listen.port + 2000}."
            ) from None
        except OSError as error:
            raise CannotStart(
                f"{listen} is in use or not on this machine ({error.strerror}). Stop the program that has it, "
                f"or set {setting}={listen.host}:{listen.port + 1}."
            ) from None


def _prepare(settings: Environment, *, demo: bool) -> tuple[bool, dict[str, str]]:
    """Folders, keys, certificate, tables, demo. Whether the demo is new, and its logins with their passwords."""
    import django
    from django.core.management import call_command
    from django.core.management.base import CommandError
    from django.db import connections
    from django.db.utils import Error

    django.setup()
    try:
        call_command("prepare")
        first = False
        if demo:
            from panel.operations import demo as demonstration

            first = demonstration.seed(settings.data)
    except CommandError as error:
        raise CannotStart(str(error)) from None
    except Error as error:
        cause = str(error).strip().partition("\n")[0]
        raise CannotStart(f"the database can't be used: {cause}. Look at DATABASE_URL.") from None
    except OSError as error:
        raise CannotStart(f"{error.filename} can't be written: {error.strerror}.") from None
    finally:
        connections.close_all()
    return first, _demo_passwords(settings)


def _demo_passwords(settings: Environment) -> dict[str, str]:
    """Login to password, from the data folder's demo.txt; empty without a demo."""
    try:
        lines = (settings.data / "demo.txt").read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {login: password for login, _, password in (line.partition(" ") for line in lines) if password}


def _start(command: list[str], uid: int | None = None, *gids: int) -> subprocess.Popen[bytes]:
    us = os.getpid()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)

    # Run between fork and exec, which is safe in a program with one thread.
    def end_with_us() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, most))
        if not kernel.end_with(us):
            os._exit(1)

    # A session of its own: Ctrl-C reaches us alone, and we stop the programs in order.
    return subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdin=subprocess.DEVNULL, umask=system_users.UMASK,
        user=uid, group=gids[0] if gids else None, extra_groups=gids or None,
        preexec_fn=end_with_us,
    )


def _wait_until_all_answer(settings: Environment, programs: Programs) -> None:
    deadline = time.monotonic() + ANSWER_WITHIN_S
    for listen in (*settings.mx, *settings.submission):
        while not _greets(listen):
            _still_waiting(programs, deadline, f"the mailserver on {listen}")
    while not _panel_answers(settings):
        _still_waiting(programs, deadline, f"the panel on {settings.http}")
    while "dovecot" in programs and not _dovecot_greets(settings):
        if programs["dovecot"].poll() is not None and os.geteuid() != 0 and os.getuid() != 0:
            command = f"dovecot -F -c {dovecot.folder(settings) / 'dovecot.conf'}"
            _say(f"without reading by IMAP and POP3: Dovecot doesn't run as this user. As root: {command}")
            del programs["dovecot"]
            return
        _still_waiting(programs, deadline, "Dovecot")


def _still_waiting(programs: Programs, deadline: float, what: str) -> None:
    for name, program in programs.items():
        if program.poll() is not None:
            raise CannotStart(f"the {name} ended at its start; the lines above say why.")
    if time.monotonic() > deadline:
        raise CannotStart(f"{what} doesn't answer within {ANSWER_WITHIN_S:.0f} s; the lines above may say why.")
    time.sleep(0.1)


def _greets(listen: Listen) -> bool:
    try:
        with socket.create_connection((_reachable(listen), listen.port), timeout=5) as connection:
            return connection.recv(4) == b"220 "
    except OSError:
        return False


def _dovecot_greets(settings: Environment) -> bool:
    """Whether every listener of Dovecot's answers."""
    try:
        for listen in (*settings.imaps, *settings.pop3s):
            with socket.create_connection((_reachable(listen), listen.port), timeout=5) as connection:
                with _client_context(settings, check=False).wrap_socket(connection) as secured:
                    if secured.recv(3) not in (b"* O", b"+OK"):
                        return False
        for listen in settings.sieve:
            with socket.create_connection((_reachable(listen), listen.port), timeout=5) as connection:
                if connection.recv(1) != b'"':
                    return False
    except OSError:
        return False
    return True


def _reachable(listen: Listen) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104


def _panel_url(settings: Environment) -> str:
    http = settings.http
    return f"http://{Listen(_reachable(http), http.port)}/"


def _panel_answers(settings: Environment) -> bool:
    request = urllib.request.Request(  # noqa: S310 our own address
        _panel_url(settings) + "admin/login/",
        headers={"Host": settings.hostname, "X-Forwarded-Proto": "https"} if settings.https_proxy else {},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _has_first_message(settings: Environment) -> bool:
    return (settings.data / "run" / "first-message").exists()


def _send_first_message(settings: Environment, passwords: dict[str, str], *, reading: bool) -> str:
    """Send shop → office as a mail client would, and read it. Where it landed, as a sentence. Raises CannotStart."""
    sender, recipient = "shop@demo.test", "office@demo.test"
    listen = settings.submission[0]
    mailbox = _maildir(settings, recipient)
    before = set(mailbox.glob("new/*")) if mailbox.exists() else set()
    text = (
        f"From: {sender}\r\nTo: {recipient}\r\nSubject: Posthouse works\r\n"
        f"Date: {email.utils.formatdate(usegmt=True)}\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n\r\n"
        "This message came through the submission port, with TLS and a login,\r\n"
        "and was put into this mailbox before it was answered with 250.\r\n"
    )
    try:
        with smtplib.SMTP(_reachable(listen), listen.port, timeout=30) as client:
            client.starttls(context=_client_context(settings))
            client.login(sender, passwords[sender])
            client.sendmail(sender, [recipient], text)
    except (OSError, smtplib.SMTPException, KeyError) as error:
        raise CannotStart(f"the first message couldn't be sent: {error}") from None
    if settings.store.default == "lmtp" and not (reading and settings.store.lmtp == dovecot.lmtp_socket(settings)):
        (settings.data / "run" / "first-message").touch()
        return f"a first message went from {sender} to {recipient}, for the mail store at {settings.store.lmtp}"
    deadline = time.monotonic() + ARRIVE_WITHIN_S
    while time.monotonic() < deadline:
        for path in set(mailbox.glob("new/*")) - before:
            read = ""
            if reading and settings.imaps:
                _read_back(settings, recipient, passwords, path)
                read = " and was read back over IMAP"
            (settings.data / "run" / "first-message").touch()
            return f"a first message went from {sender} to {recipient}{read}; it lies in {path}"
        time.sleep(0.05)
    raise CannotStart(f"the first message was accepted but didn't arrive in {mailbox}.")


def _read_back(settings: Environment, login: str, passwords: dict[str, str], path: Path) -> None:
    """See that the newest message over IMAP is the file, byte for byte. Raises CannotStart."""
    listen = settings.imaps[0]
    try:
        with imaplib.IMAP4_SSL(
            _reachable(listen), listen.port, ssl_context=_client_context(settings), timeout=30
        ) as client:
            client.login(login, passwords[login])
            client.select(readonly=True)  # what is only examined stays new, and where it lies
            _, parts = client.fetch("*", "(BODY.PEEK[])")
    except (OSError, imaplib.IMAP4.error, KeyError) as error:
        raise CannotStart(f"the first message couldn't be read over IMAP: {error}") from None
    # Dovecot, where it stores by LMTP, writes LF for CRLF.
    written = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if not any(isinstance(part, tuple) and part[1] == written for part in parts):
        raise CannotStart(f"the newest message of {login} over IMAP isn't the one in {path}.")


def _client_context(settings: Environment, *, check: bool = True) -> ssl.SSLContext:
    """Trusts our own certificate by name; one from elsewhere isn't ours to judge on loopback."""
    context = ssl.create_default_context()
    if check and settings.tls_cert == settings.data / "tls" / "cert.pem":
        context.load_verify_locations(settings.tls_cert)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _maildir(settings: Environment, address: str) -> Path:
    from django.db import connections

    from panel.mailboxes.models import Mailbox

    local_part, _, domain = address.partition("@")
    opaque_id = Mailbox.objects.values_list("opaque_id", flat=True).get(
        address__local_part=local_part, address__domain__name=domain
    )
    connections.close_all()
    return settings.data / "mail" / opaque_id[:2] / opaque_id / "Maildir"


def _print_examples(settings: Environment, passwords: dict[str, str], *, reading: bool) -> None:
    password = shlex.quote(passwords.get("shop@demo.test", ""))
    certificate = shlex.quote(str(settings.tls_cert))
    starttls, implicit = settings.submission[0], settings.submissions[0] if settings.submissions else None
    _say("send a message yourself:")
    print(
        f"    swaks --server {_reachable(starttls)}:{starttls.port} -tls --auth PLAIN --auth-user shop@demo.test "
        f"--auth-password {password} --from shop@demo.test --to office@demo.test",
        flush=True,
    )
    if implicit:
        print(
            "    printf 'From: shop@demo.test\\r\\nTo: office@demo.test\\r\\nSubject: Hello\\r\\n\\r\\nHello.\\r\\n' | "
            f"curl --url smtps://localhost:{implicit.port} --cacert {certificate} "
            f"--user shop@demo.test:{password} --mail-from shop@demo.test --mail-rcpt office@demo.test -T -",
            flush=True,
        )
    _say("settings for a mail client (user name: the whole address):")
    if reading:
        for name, listens in (("IMAP", settings.imaps), ("POP3", settings.pop3s)):
            for listen in listens:
                print(f"    incoming {name}  {_named(listen)}  SSL/TLS", flush=True)
    for listen in settings.submission:
        print(f"    outgoing SMTP  {_named(listen)}  STARTTLS", flush=True)
    for listen in settings.submissions:
        print(f"    outgoing SMTP  {_named(listen)}  SSL/TLS", flush=True)
    _say(f"the admin: {_panel_url(settings)}admin/ as admin@localhost")
    _say(f"the console: {_panel_url(settings)}sign-in/ as shop@demo.test, with its password from above or demo.txt")


def _named(listen: Listen) -> str:
    """Server and port as a mail client on this machine asks for them; the certificate holds the name."""
    host = "localhost" if Listen(_reachable(listen), 0).is_loopback else listen.host
    return f"server {host}  port {listen.port}"


def _watch(
    settings: Environment, users: SystemUsers | None, programs: Programs, finishing: list[subprocess.Popen[bytes]]
) -> int:
    """Wait for Ctrl-C (KeyboardInterrupt) or for a program's end, which is a failure; restart when asked."""
    certificate = _changed_at(settings.tls_cert)
    while True:
        if "dovecot" in programs and certificate != (certificate := _changed_at(settings.tls_cert)):
            programs["dovecot"].send_signal(signal.SIGHUP)  # the mailserver looks by itself
        for name, program in list(programs.items()):
            if program.poll() is None:
                continue
            if name == "mailserver" and program.returncode == 0 and (pid := _other_mailserver(settings, program.pid)):
                _say(f"the mailserver was taken over by process {pid}, which isn't stopped with the rest")
                del programs[name]
                continue
            _say(f"the {name} ended with code {program.returncode}; stopping the rest")
            return 1
        finishing[:] = [program for program in finishing if program.poll() is None]
        if RESTART.is_set():
            RESTART.clear()
            _restart(settings, users, programs, finishing)
        time.sleep(0.5)


def _restart(
    settings: Environment, users: SystemUsers | None, programs: Programs, finishing: list[subprocess.Popen[bytes]]
) -> None:
    """Replace the mailserver by one that takes over, and the panel's workers; what can't start replaces nothing."""
    new = _start_mailserver(users, "--take-over")
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while _mailserver_pid(settings) != new.pid:
        if new.poll() is not None or time.monotonic() > deadline:
            new.kill()
            new.wait()
            _say("not restarted, everything goes on as before; the lines above say why")
            return
        time.sleep(0.1)
    if "mailserver" in programs:
        finishing.append(programs["mailserver"])
    programs["mailserver"] = new
    programs["panel"].send_signal(signal.SIGHUP)
    _say("restarted: new processes serve, those before finish what they are at")


def _have_restarted(settings: Environment) -> int:
    """Prepare what an update needs, then have the running one restart. Raises CannotStart."""
    pid = _running(settings)
    if not pid:
        raise CannotStart(f"Posthouse isn't running on {settings.data}; start it with deploy/run.")
    before = _mailserver_pid(settings)
    _prepare(settings, demo=False)
    os.kill(pid, signal.SIGUSR2)
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while _mailserver_pid(settings) == before:
        if time.monotonic() > deadline:
            raise CannotStart("no new mailserver serves, the one before goes on; the running one's output says why.")
        time.sleep(0.1)
    _say("restarted: new processes serve, those before finish what they are at")
    return 0


def _running(settings: Environment) -> int:
    """The process that holds the start lock; 0: none does."""
    try:
        with (settings.data / "run" / "start.lock").open("rb+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read(20))
    except (OSError, ValueError):
        pass
    return 0


def _mailserver_pid(settings: Environment) -> int:
    """The mailserver that serves on this data, or served last; 0: none ever did."""
    try:
        return int((settings.data / "run" / "mailserver.lock").read_text())
    except (OSError, ValueError):
        return 0


def _other_mailserver(settings: Environment, than: int) -> int:
    """The mailserver that has taken over from another; 0 if none has."""
    pid = _mailserver_pid(settings)
    return pid if pid != than and Path(f"/proc/{pid}").exists() else 0


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _stop(programs: Programs, finishing: list[subprocess.Popen[bytes]]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    running = [program for program in (*programs.values(), *finishing) if program.poll() is None]
    if running:
        _say("stopping; sessions finish their message first")
    for program in running:
        program.terminate()
    deadline = time.monotonic() + STOP_WITHIN_S
    for program in running:
        try:
            program.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
    _say("stopped")


if __name__ == "__main__":
    sys.exit(main())
