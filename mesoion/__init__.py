"""What grain boundaries do to a pellet of an oxide solid electrolyte.

Importing this package loads neither FiPy nor matplotlib nor any atomistic code; each is imported where it is used.
"""

__version__ = "0.1.0"
