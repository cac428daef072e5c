"""Telling mail clients their settings, and other mail servers a domain's policy, without a login.

Thunderbird, Outlook and Apple Mail ask by a person's address, or only by a domain. Every
proved domain and proved domain alias is answered alike, whoever asks and whether or not
the address exists: no mailbox is ever looked up. All other names get one and the same
"nothing here". No answer holds a secret.
"""
