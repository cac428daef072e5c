"""Hypothesis without its deadline an example: a test never fails because the machine is busy."""

from hypothesis import settings

settings.register_profile("posthouse", deadline=None)
settings.load_profile("posthouse")
