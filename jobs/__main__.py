"""``python -m jobs``: the ``replisome`` command, for places where only the interpreter is known."""

from jobs.cli import main

main()
