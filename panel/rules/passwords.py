"""What makes a password easy to guess, apart from standing in a list.

Attackers take the lists and put a year, a digit or a sign around each word, and write it
with the usual substitutes. NIST SP 800-63B-4 §3.1.1.2 asks for a list of common, expected and
leaked values, and for no rules of composition.
"""

import unicodedata
from itertools import pairwise

FEWEST_DIFFERENT = 5
MOST_AROUND = 8  # characters around a common word that don't make it a good one

_SUBSTITUTES = str.maketrans("013457@$!", "oleastasi")


def cores(password: str) -> set[str]:
    """The words that are left without digits and signs around them, as written and with letters for digits.

    None when more than MOST_AROUND characters are around it: then they count.
    """
    lower = unicodedata.normalize("NFKC", password).casefold()
    found = set()
    for text in (lower, lower.translate(_SUBSTITUTES), _bare(lower).translate(_SUBSTITUTES)):
        core = _bare(text)
        half = core[: len(core) // 2]
        if len(lower) - len(core) <= MOST_AROUND:
            found |= {core, half} if half * 2 == core else {core}
    return {each for each in found if len(each) >= 4}


def is_monotonous(password: str) -> bool:
    """Few different characters, or a row of neighbours such as abcdefghij or 9876543210."""
    lower = password.casefold()
    steps = {ord(after) - ord(before) for before, after in pairwise(lower)}
    return len(set(lower)) < FEWEST_DIFFERENT or steps in ({1}, {-1})


def _bare(text: str) -> str:
    """Without what is no letter at both ends."""
    letters = [at for at, character in enumerate(text) if character.isalpha()]
    return text[letters[0]:letters[-1] + 1] if letters else ""
