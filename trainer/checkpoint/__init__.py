"""Checkpoints addressed by layer: any grid can read what any other wrote.

Read :mod:`format` first, then :mod:`snapshot` and :mod:`writer` for saving, :mod:`reader` and
:mod:`restore` for loading. Plain Python throughout: workers meet in the folder, not in a process
group.
"""
