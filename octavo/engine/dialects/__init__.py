"""How models write calls of tools and thoughts: one dialect per file, described once as a Dialect.

    DIALECT    from which calls are rendered, constrained and read (see engine/dialect.py)
    EXAMPLE    what a model says that thinks, says something, and then calls twice, if it may
    is_spoken  chat template -> whether its model speaks it

A dialect is chosen by the chat template, the first in order of their names that is spoken, or by
`--tool-dialect`. `plain` is for the models whose template knows no tools.
"""
