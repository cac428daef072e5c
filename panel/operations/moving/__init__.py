"""Moving mailboxes in from another mail host, by IMAP.

accounts reads the list of what moves; mbsync pulls a mailbox into a private folder and
keeps what it has pulled; publish carries the messages from there into the Maildir here.
"""
