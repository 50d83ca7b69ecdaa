"""How a dataset lies on disk: a module for each layout, registered in `LAYOUTS`.

Every module of this package is searched for layouts, so that a new one is a new file here.
"""
