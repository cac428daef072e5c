#!/usr/bin/env python3
"""Posthouse's command line: `manage.py help` lists what it can do."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "panel.settings")
    from panel.environment import BadSetting

    try:
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except BadSetting as error:
        sys.exit(f"posthouse: {error}")


if __name__ == "__main__":
    main()
