"""The formats in which a network leaves segpipe: each writes a file, and computes what it wrote."""
