"""Nothing that opens a door gets out: every secret that a test run makes is searched for in everything it prints.

- `sitecustomize`: in every Python process of a run, writes each token, key secret and private key down as it is made.
- `hunt`: finds any piece of one in a text.
- `plugin`: what is searched, and when: the output of child processes, the logs of tests, error bodies, audit tables.
"""
