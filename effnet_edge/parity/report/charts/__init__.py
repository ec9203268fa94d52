"""The report's charts: SVG text whose colours are the page's and whose widths are per cent.

Positions across are per cent of whatever room there is, positions down are pixels: a chart fits a
telephone and a printed page without its text becoming smaller.
"""
