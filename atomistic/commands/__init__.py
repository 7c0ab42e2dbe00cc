"""Commands of `atomistic`: one module each, holding a function `command` that typer turns into the command line.

A module's name is the command's name; `atomistic.cli` finds them by themselves. What is heavy is imported inside.
"""
