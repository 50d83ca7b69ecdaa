"""Hydra's own words on a command line, told apart from overrides."""

import argparse
from collections.abc import Sequence


def parse_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Return Hydra's options and, under `overrides`, the other words.

    A word that Hydra does not know stands under `unknown`.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--package", "-p")
    parser.add_argument("--info", "-i", nargs="?", const="all")
    for flag in (("--run", "-r"), ("--resolve",), ("--hydra-help",), ("--version",)):
        parser.add_argument(*flag, action="store_true")
    found, unknown = parser.parse_known_intermixed_args(list(arguments))
    found.unknown = unknown
    return found
