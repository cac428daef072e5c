"""Completion in the shell: groups, acts and options from the commands themselves, names from the database."""

import argparse
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings
from django.core.management import get_commands, load_command_class
from django.db.models import Q

from panel.domains.models import Domain, DomainAlias
from panel.mailboxes.models import Alias, Mailbox
from panel.operations.management import base
from panel.tenants.models import Plan, Tenant, User

MOST_VALUES = 100
KINDS = ("accounts", "aliases", "domainaliases", "domains", "mailboxes", "plans", "tenants")
# What a positional argument or an option's value is, by its metavar.
_OF_METAVAR = {"TENANT": "tenants", "PLAN": "plans", "DOMAIN": "domains", "EMAIL": "accounts", "SUBJECT": "mailboxes"}
# The same where the metavar says too little, by the group.
_OF_GROUP = {
    "alias": "aliases", "credential": "mailboxes", "domain": "domains", "domainalias": "domainaliases",
    "login": "mailboxes", "mailbox": "mailboxes", "plan": "plans", "rule": "mailboxes",
    "tenant": "tenants",
}


class Command(base.Command):
    help = (
        "Completion for bash and zsh of `manage.py`, or of `posthouse` when that is an alias for it: groups, acts, "
        "options, and the names of tenants, domains and mailboxes."
    )
    examples = """
        completion bash >/etc/bash_completion.d/posthouse
        completion zsh >~/.zfunc/_posthouse
    """

    def add_acts(self, acts: base.Acts) -> None:
        acts.add(
            "bash", self.bash, help="Print the script for bash.",
            examples="completion bash >/etc/bash_completion.d/posthouse",
        )
        acts.add(
            "zsh", self.zsh, help="Print the script for zsh; its folder stands in $fpath.",
            examples="completion zsh >~/.zfunc/_posthouse",
        )
        values = acts.add(
            "values", self.values, help=f"Print names that begin so, {MOST_VALUES} at most; the scripts ask this.",
            examples="completion values mailboxes ann@",
        )
        values.add_argument("kind", choices=KINDS)
        values.add_argument("prefix", nargs="?", default="")

    def bash(self) -> None:
        self.stdout.write(_script(_BASH, "    "))

    def zsh(self) -> None:
        self.stdout.write(_script(_ZSH, "    "))

    def values(self, *, kind: str, prefix: str) -> None:
        found = list(_values(kind, prefix.strip()))
        if self.as_json:
            self.json(found)
        for text in [] if self.as_json else found:
            self.say(text)


@dataclass(frozen=True)
class _Act:
    """An act with what may stand after it."""

    group: str
    name: str
    options: tuple[str, ...]
    kind: str  # of its positional arguments; empty: nothing that is known
    takes: tuple[tuple[str, str], ...]  # options with the kind or the words of their value


def acts() -> list[_Act]:
    """Every act of every command of ours."""
    found = []
    for group in sorted(name for name, app in get_commands().items() if app == "panel.operations"):
        command = load_command_class("panel.operations", group)
        if not isinstance(command, base.Command):
            found.append(_Act(group, "", (), "", ()))
            continue
        parser = command.create_parser("manage.py", group)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found += [_act(group, name, each) for name, each in action.choices.items()]
    return found


def _act(group: str, name: str, parser: argparse.ArgumentParser) -> _Act:
    options: list[str] = []
    takes: list[tuple[str, str]] = []
    kind = ""
    for action in parser._actions:
        of = _OF_METAVAR.get(str(action.metavar), "")
        if not action.option_strings:
            # What is being made has no name yet.
            own = _OF_GROUP.get(group, "") if action.metavar in ("NAME", "ADDRESS") else of
            if not kind and not (name == "create" and action.metavar in ("NAME", "EMAIL")):
                kind = "" if name == "create" and group in ("mailbox", "alias") else own
            continue
        long = next((text for text in action.option_strings if text.startswith("--")), action.option_strings[0])
        options.append(long)
        if action.metavar == "ADDRESS":
            of = "mailboxes"
        if action.choices:
            takes.append((long, f"={' '.join(map(str, action.choices))}"))
        elif of:
            takes.append((long, of))
    return _Act(group, name, tuple(options), kind, tuple(takes))


def _script(frame: str, indent: str) -> str:
    found = acts()
    groups = sorted({act.group for act in found})
    names = [
        f'{indent}{group}) acts="{" ".join(act.name for act in found if act.group == group and act.name)}" ;;'
        for group in groups
    ]
    after = [
        f'{indent}"{act.group} {act.name}") options="{" ".join(act.options)}" kind="{act.kind}"'
        f' takes="{";".join(f"{option}:{what}" for option, what in act.takes)}" ;;'
        for act in found
        if act.name
    ]
    program = f"{shlex.quote(sys.executable)} {shlex.quote(str(settings.BASE_DIR / 'manage.py'))}"
    return (
        frame.strip()
        .replace("@GROUPS@", " ".join(groups))
        .replace("@ACTS@", "\n".join(names))
        .replace("@AFTER@", "\n".join(after))
        .replace("@PROGRAM@", program)
    )


# Words are parted at blanks alone: bash's own list of words breaks at @ and :.
_BASH = r"""
# Completion for Posthouse's manage.py in bash, made by `manage.py completion bash`.
_posthouse() {
  local line="${COMP_LINE:0:COMP_POINT}" words=() current previous acts="" options="" kind="" takes="" known cut
  read -ra words <<<"$line"
  [[ "$line" == *[[:space:]] ]] && words+=("")
  local count=${#words[@]}
  current="${words[count-1]}" previous="${words[count-2]}"
  case "${words[1]}" in
@ACTS@
  esac
  case "${words[1]} ${words[2]}" in
@AFTER@
  esac
  if ((count == 2)); then
    known="@GROUPS@"
  elif ((count == 3)); then
    known="$acts"
  else
    local what=";$takes;"
    if [[ "$previous" == --* && "$what" == *";$previous:"* ]]; then
      what="${what#*;"$previous":}" what="${what%%;*}"
      [[ "$what" == "="* ]] && known="${what#=}" || kind="$what"
      options=""
    fi
    if [[ "$current" == -* ]]; then
      known="$options"
    elif [[ -z "$known" && -n "$kind" ]]; then
      local IFS=$'\n'
      COMPREPLY=($(@PROGRAM@ completion values "$kind" "$current" 2>/dev/null))
      cut="${current%"${current##*[@:=]}"}"
      COMPREPLY=("${COMPREPLY[@]#"$cut"}")
      return
    fi
  fi
  COMPREPLY=($(compgen -W "$known" -- "$current"))
}
complete -F _posthouse manage.py posthouse
"""

_ZSH = r"""
#compdef manage.py posthouse
# Completion for Posthouse's manage.py in zsh, made by `manage.py completion zsh`.
_posthouse() {
  local acts="" options="" kind="" takes="" what known current="${words[CURRENT]}" previous="${words[CURRENT-1]}"
  case "${words[2]}" in
@ACTS@
  esac
  case "${words[2]} ${words[3]}" in
@AFTER@
  esac
  if ((CURRENT == 2)); then
    known="@GROUPS@"
  elif ((CURRENT == 3)); then
    known="$acts"
  else
    what=";$takes;"
    if [[ "$previous" == --* && "$what" == *";$previous:"* ]]; then
      what="${what#*;$previous:}" what="${what%%;*}"
      if [[ "$what" == "="* ]]; then known="${what#=}"; else kind="$what"; fi
      options=""
    fi
    if [[ "$current" == -* ]]; then
      known="$options"
    elif [[ -z "$known" && -n "$kind" ]]; then
      compadd -- ${(f)"$(@PROGRAM@ completion values "$kind" "$current" 2>/dev/null)"}
      return
    fi
  fi
  compadd -- ${=known}
}
compdef _posthouse manage.py posthouse
"""


def _values(kind: str, prefix: str) -> Iterable[str]:
    """Names of this kind that begin so."""
    local_part, at, domain = prefix.lower().rpartition("@")
    if kind in ("mailboxes", "aliases"):
        model: type[Mailbox] | type[Alias] = Mailbox if kind == "mailboxes" else Alias
        begins = (
            Q(local_part=local_part.removeprefix("*"), domain_name__startswith=domain)
            if at else Q(local_part__startswith=domain)
        )
        rows = model._default_manager.filter(begins).select_related("address__domain")
        return [str(row) for row in rows.order_by("local_part", "domain_name")[:MOST_VALUES]]
    names = {
        "accounts": User.objects.filter(kind=User.Kind.PANEL, email__startswith=prefix.lower()).values_list("email"),
        "domainaliases": DomainAlias.objects.filter(name__startswith=prefix.lower()).values_list("name"),
        "domains": Domain.objects.filter(name__startswith=prefix.lower()).values_list("name"),
        "plans": Plan.objects.filter(name__istartswith=prefix).values_list("name"),
        "tenants": Tenant.objects.filter(name__istartswith=prefix).values_list("name"),
    }
    return [str(name) for (name,) in names[kind].order_by(names[kind].query.values_select[0])[:MOST_VALUES]]
