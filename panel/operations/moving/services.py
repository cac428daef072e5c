"""Moves accounts in, one after another: each fails alone, and each that moved has its entry in the audit log."""

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from django.db import transaction

from panel.mailboxes.models import MailboxUsage
from panel.operations.moving import mbsync
from panel.operations.moving.accounts import Account
from panel.operations.moving.mbsync import PullError
from panel.operations.moving.publish import Published, publish
from panel.tenants import audit
from panel.tenants.models import User

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How all accounts are pulled. `without`: far folders (IMAP patterns) that stay where they are.

    `last`: forget what was pulled once an account is in without a complaint.
    """

    data: Path
    plain: bool = False
    authority: Path | None = None
    without: Sequence[str] = ()
    last: bool = False


@dataclass(slots=True)
class Result:
    """What became of one account; `error` is empty when all of it is here."""

    account: Account
    published: Published = field(default_factory=Published)
    error: str = ""
    took_s: float = 0.0


def migrate(accounts: Iterable[Account], options: Options, *, say: Say, actor: User | None) -> list[Result]:
    """Pull each account; `say` is told of the progress."""
    accounts = list(accounts)
    results = []
    for number, account in enumerate(accounts, 1):
        name = f"[{number}/{len(accounts)}] {account.mailbox}"
        say(f"{name}: pulling {account.user} from {account.host} …")
        result = _migrate_one(account, options, progress=partial(_tell_progress, say, name))
        results.append(result)
        came = f"{result.published.messages} messages in {len(result.published.folders)} folders"
        say(f"{name}: {came}{'; ' + result.error if result.error else ''}")
        for there, here in result.published.renamed.items():
            say(f"{name}: the folder {there} is called {here} here")
        if result.published.messages or not result.error:
            _record(result, actor)
    return results


def _tell_progress(say: Say, name: str, waiting: int) -> None:
    say(f"{name}: {waiting} messages so far …")


def _migrate_one(account: Account, options: Options, *, progress: Callable[[int], None]) -> Result:
    result = Result(account)
    began_s = time.monotonic()
    folder = mbsync.folder_of(options.data, account)
    try:
        with mbsync.opened(folder) as lock:
            # Published is only after an mbsync that ended by itself: one that was cut short must
            # first find again what it had written, in the next run.
            result.error = mbsync.pull(
                account, folder, lock, plain=options.plain, authority=options.authority, without=options.without,
                progress=progress,
            )
            maildir = options.data / "mail" / account.mailbox.opaque_id[:2] / account.mailbox.opaque_id / "Maildir"
            publish(folder, maildir, result.published)
            if options.last and not result.error:
                mbsync.forget(folder)
    except PullError as error:
        result.error = str(error)
    except OSError as error:
        result.error = f"{error.filename or folder}: {error.strerror or error}"
    result.took_s = time.monotonic() - began_s
    return result


def rehearse(accounts: Iterable[Account], options: Options, *, say: Say) -> list[Result]:
    """Log in to each account and list its folders; nothing is pulled or kept."""
    results = []
    for account in accounts:
        result = Result(account)
        try:
            with tempfile.TemporaryDirectory(prefix="posthouse-") as scratch:
                folders = mbsync.list_folders(
                    account, plain=options.plain, authority=options.authority, without=options.without,
                    scratch=Path(scratch),
                )
            say(f"{account.mailbox}: {account.user} has {len(folders)} folders: {', '.join(folders)}")
        except PullError as error:
            result.error = str(error)
            say(f"{account.mailbox}: {result.error}")
        results.append(result)
    return results


@transaction.atomic
def _record(result: Result, actor: User | None) -> None:
    account = result.account
    after = {
        "from": f"{account.user} at {account.host}", "messages": result.published.messages,
        "bytes": result.published.size_bytes, "complete": not result.error,
    }
    # What came past the mailserver is counted with its next round.
    MailboxUsage.objects.filter(mailbox=account.mailbox).update(counted_at=None)
    audit.record(actor, "mailbox.migrated", account.mailbox, tenant=account.mailbox.address.tenant, after=after)
