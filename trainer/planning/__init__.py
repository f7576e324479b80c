"""Planning a run: what layers cost, where to cut, and how long a step will take.

Read in this order: ``costs`` (of one layer), ``measuring`` and ``cached`` (where they come from),
``tables`` (sums over neighbouring layers), ``hardware`` (links between workers), ``streams`` (what
each worker does in which order), ``pipeline`` (when: an event simulator), ``memory`` (what a stage
takes), ``conditions`` and ``problem`` (all that decides a cut), ``cut`` (cuts without measuring),
``programme`` and ``search`` (the best one), ``prediction`` (of a step), ``ranking`` (of all grids),
and ``plan``, which a run calls.
"""
