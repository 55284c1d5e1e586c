"""The page of ``clipstep report --html``: a bundle and its records as one HTML file that loads nothing.

`data` is what the page is made from, and `page` puts it together from the sections, each of which is a function in a file of its own. `markup` holds
HTML elements and tables, and escapes whatever comes from a file; `charts` draws SVG.
"""
