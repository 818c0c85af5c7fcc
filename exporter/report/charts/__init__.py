"""Charts as inline SVG, by pure functions. Colours are classes of the style sheet; its numbers stand in a table.

:mod:`strip` draws one row of a table on an axis that all rows share, in percent of its width: marks keep their form at
any width. :mod:`plot` draws curves and bars on two axes.
"""
