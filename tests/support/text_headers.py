"""MetaImage and NRRD files written by hand, right ones and hostile ones."""

import bz2
import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

VOXELS = np.arange(24, dtype="<i2")
RAW = VOXELS.tobytes()
TEXT = b" ".join(str(number).encode() for number in VOXELS.tolist()) + b"\n"
METAIMAGE = {"NDims": "3", "DimSize": "2 3 4", "ElementType": "MET_SHORT"}
NRRD = {
    **{"type": "short", "dimension": "3", "sizes": "2 3 4"},
    **{"encoding": "raw", "endian": "little"},
}
BOMB = bytes(20 * 2**20)
Changes = dict[str, str | None]


def metaimage(
    changes: Changes | None = None, data: bytes = RAW, names: str = "LOCAL", end: str = "\n"
) -> bytes:
    """Return a file; a change of None leaves a key out."""
    fields = {**METAIMAGE, **(changes or {}), "ElementDataFile": names}
    lines = [f"{key} = {value}{end}" for key, value in fields.items() if value is not None]
    return "".join(lines).encode(errors="surrogateescape") + data


def nrrd(
    changes: Changes | None = None, data: bytes = RAW, magic: str = "NRRD0005", end: str = "\n"
) -> bytes:
    """Return a file; a change of None leaves a field out."""
    fields = {**NRRD, **(changes or {})}
    lines = [f"{key}: {value}{end}" for key, value in fields.items() if value is not None]
    return (f"{magic}{end}" + "".join(lines) + end).encode(errors="surrogateescape") + data


def packed_wrongly() -> dict[str, tuple[Changes, Changes, bytes]]:
    """Return packed voxels that are not what a header of 48 bytes declares.

    By name: the changes of a MetaImage, of an NRRD header, and the data.
    """
    damaged = bytearray(zlib.compress(RAW))
    damaged[-1] ^= 1
    flipped = bytearray(gzip.compress(RAW))
    flipped[-6] ^= 16
    is_packed: Changes = {"CompressedData": "True"}
    cases: dict[str, tuple[Changes, Changes, bytes]] = {
        "not packed": (is_packed, {"encoding": "gzip"}, RAW),
        "empty": (is_packed, {"encoding": "gzip"}, b""),
        "cut short": (is_packed, {"encoding": "gzip"}, gzip.compress(RAW)[:-9]),
        "checksum zlib": (is_packed, {"encoding": "gzip"}, bytes(damaged)),
        "checksum gzip": (is_packed, {"encoding": "gzip"}, bytes(flipped)),
        "too few": (is_packed, {"encoding": "gzip"}, gzip.compress(RAW[:-2])),
        "too many": (is_packed, {"encoding": "gzip"}, gzip.compress(RAW + b"ab")),
        "bomb": (is_packed, {"encoding": "gzip"}, gzip.compress(BOMB)),
        "bomb zlib": (is_packed, {"encoding": "gz"}, zlib.compress(BOMB)),
        "bomb bzip2": (is_packed, {"encoding": "bzip2"}, bz2.compress(BOMB)),
        "size declared": (
            {**is_packed, "CompressedDataSize": "99999999999"},
            {"encoding": "gz", "byte skip": "99999999999"},
            gzip.compress(RAW)[:-1],
        ),
        "from the end": (
            {**is_packed, "HeaderSize": "-1"},
            {"encoding": "gzip", "byte skip": "-1"},
            gzip.compress(BOMB),
        ),
    }
    return cases


TEXTS = {
    "words": b"a b c",
    "too few": TEXT[:20],
    "too many": TEXT + b" 7 8 9",
    "out of range": TEXT.replace(b"23", b"70000"),
    "nan": TEXT.replace(b"23", b"nan"),
    "fraction": TEXT.replace(b"23", b"2.5"),
    "endless": b"1" * 2**20,
    "digits": b"1" * 5000 + b" " + TEXT,
    "binary": bytes(range(256)),
    "nothing": b"",
}
NUMBERS = {
    "letters": "three",
    "empty": "",
    "two": "3 3",
    "negative": "-3",
    "zero": "0",
    "hundred": "100",
    "sixteen": "16",
    "one": "1",
    "huge": "99999999999999999999",
    "digits": "9" * 5000,
}
SIZES = {
    "negative": "-2 -3 4",
    "zero": "0 3 4",
    "two": "2 3",
    "four": "2 3 4 5",
    "overflow": "4294967296 4294967296 4",
    "overflow 63": "9223372036854775807 2 1",
    "large": "65536 65536 65536",
    "more than there is": "2 3 5",
    "fraction": "2.5 3 4",
    "nan": "nan 3 4",
    "digits": "9" * 5000 + " 3 4",
    "directives": "%n %s %n",
}
FILES = {
    "absolute": "/etc/passwd",
    "above": "../outside.raw",
    "above again": "sub/../../outside.raw",
    "directives": "%n%s",
    "more directives": "%s%s%s%s%s%n",
    "one directive": "%d",
    "numbered": "slice%03d.raw 1 4 1",
    "numbered without end": "slice%03d.raw 1 999999999 1",
    "wide": "%999999d.raw 1 2 1",
    "numbered directives": "%n%d.raw 1 2 1",
    "numbered above": "../out%d.raw 1 2 1",
    "numbered backwards": "s%d.raw 4 1 1",
    "spaces": "s%d.raw" + " " * 100_000 + "1",
    "pipe": "pipe",
    "device": "/dev/zero",
    "link to a device": "zero",
    "link outside": "outside",
    "loop": "loop",
    "folder": ".",
    "empty": "",
    "missing": "missing.raw",
    "short": "short.raw",
    "nul": "a\0b.raw",
    "long": "x" * 5000,
    "longer": "x" * 300,
    "escapes": "\x1b[31m\x07.raw",
    "not UTF-8": "\udcff\udcfe.raw",
    "list of none": "LIST",
    "list": "LIST\n/etc/passwd\n../outside.raw",
    "list of five": "LIST" + "\nshort.raw" * 5,
    "list of one twice": "LIST" + "\nshort.raw" * 2,
    "list of many": "LIST" + "\nshort.raw" * 20_000,
    "list of pipes": "LIST\npipe\npipe",
}


def hostile_folder(folder: Path) -> Path:
    """Make a folder beside which and in which lies what headers have no business with."""
    folder.mkdir(parents=True)
    (folder.parent / "outside.raw").write_bytes(RAW)
    (folder.parent / "out1.raw").write_bytes(RAW)
    (folder / "sub").mkdir()
    (folder / "short.raw").write_bytes(RAW[:-1])
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "outside").symlink_to("../outside.raw")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    return folder


def _metaimages() -> dict[str, bytes]:
    """Return hostile MetaImages by name."""
    cases: dict[str, bytes] = {}
    for name, value in NUMBERS.items():
        cases[f"NDims {name}"] = metaimage({"NDims": value})
    for name, value in SIZES.items():
        cases[f"DimSize {name}"] = metaimage({"DimSize": value})
    for name, (changes, _, data) in packed_wrongly().items():
        cases[f"packed {name}"] = metaimage(changes, data)
    for name, data in TEXTS.items():
        cases[f"text {name}"] = metaimage({"BinaryData": "False"}, data)
    for name, value in FILES.items():
        cases[f"file {name}"] = metaimage(names=value, data=b"")
    for key in METAIMAGE:
        cases[f"without {key}"] = metaimage({key: None})
    dimensions = " ".join(["2"] * 100)
    others: dict[str, Changes] = {
        "100 dimensions": {"NDims": "100", "DimSize": dimensions},
        "4 dimensions": {"NDims": "4", "DimSize": "2 3 2 2"},
        "type unknown": {"ElementType": "MET_FOO"},
        "type text": {"ElementType": "MET_STRING"},
        "type other": {"ElementType": "MET_OTHER"},
        "type directives": {"ElementType": "%n%s"},
        "channels none": {"ElementNumberOfChannels": "0"},
        "channels negative": {"ElementNumberOfChannels": "-1"},
        "channels many": {"ElementNumberOfChannels": "1000000000"},
        "channels letters": {"ElementNumberOfChannels": "a"},
        "spacing zero": {"ElementSpacing": "0 1 1"},
        "spacing nan": {"ElementSpacing": "nan 1 1"},
        "spacing inf": {"ElementSpacing": "inf 1 1"},
        "spacing tiny": {"ElementSpacing": "1e-300 1 1"},
        "spacing large": {"ElementSpacing": "1e308 1e308 1e308"},
        "spacing two": {"ElementSpacing": "1 1"},
        "matrix singular": {"TransformMatrix": "1 0 0 1 0 0 0 0 1"},
        "matrix nan": {"TransformMatrix": "nan 0 0 0 1 0 0 0 1"},
        "matrix zero": {"Rotation": "0 0 0 0 0 0 0 0 0"},
        "matrix eight": {"Orientation": "1 0 0 0 1 0 0 0"},
        "offset inf": {"Offset": "inf 0 0"},
        "offset letters": {"Position": "a b c"},
        "header negative": {"HeaderSize": "-2"},
        "header large": {"HeaderSize": "99999999999"},
        "header letters": {"HeaderSize": "x"},
        "header from the end": {"HeaderSize": "-1", "DimSize": "20 30 40"},
    }
    for name, changes in others.items():
        cases[name] = metaimage(changes)
    cases["twice"] = b"NDims = 2\n" + metaimage()
    cases["no line"] = metaimage({"NDims": "3\nhello"})
    cases["UTF-16"] = metaimage().decode("latin-1").encode("utf-16")
    cases["no end"] = b"A = b\n" * 100_000
    cases["last line only"] = b"ElementDataFile = LOCAL\n"
    return cases


def _nrrds() -> dict[str, bytes]:
    """Return hostile NRRD files by name."""
    cases: dict[str, bytes] = {}
    for name, value in NUMBERS.items():
        cases[f"dimension {name}"] = nrrd({"dimension": value})
    for name, value in SIZES.items():
        cases[f"sizes {name}"] = nrrd({"sizes": value})
    for name, (_, changes, data) in packed_wrongly().items():
        cases[f"packed {name}"] = nrrd(changes, data)
    for name, data in TEXTS.items():
        cases[f"text {name}"] = nrrd({"encoding": "ascii"}, data)
        if name != "binary":
            cases[f"hex {name}"] = nrrd({"encoding": "hex"}, data.replace(b" ", b"g"))
    for name, value in FILES.items():
        cases[f"file {name}"] = nrrd({"data file": value}, b"")
    for key in NRRD:
        cases[f"without {key}"] = nrrd({key: None})
    axes = " ".join(["1"] * 16)
    vectors = "(1,0,0) (0,1,0) (0,0,1)"
    others: dict[str, Changes] = {
        "16 dimensions": {"dimension": "16", "sizes": axes},
        "4 dimensions": {"dimension": "4", "sizes": "2 3 2 2"},
        "two kinds of values": {"kinds": "vector list domain"},
        "kinds two": {"kinds": "domain domain"},
        "kinds complex": {"kinds": "complex domain domain"},
        "type unknown": {"type": "half"},
        "type block": {"type": "block"},
        "type directives": {"type": "%n%s"},
        "endian unknown": {"endian": "middle"},
        "encoding unknown": {"encoding": "zrl"},
        "space unknown": {"space": "moon", "space directions": vectors},
        "no space": {"space directions": vectors},
        "directions two": {"space": "RAS", "space directions": "(1,0,0) (0,1,0)"},
        "directions none": {"space": "RAS", "space directions": "none none none"},
        "directions flat": {"space": "RAS", "space directions": "(1,0) (0,1) (1,1)"},
        "directions open": {"space": "RAS", "space directions": "(1,0,0) (0,1,0) (0,0,1"},
        "directions many open": {"space": "RAS", "space directions": "(" * 100_000},
        "directions letters": {"space": "RAS", "space directions": "(a,0,0) (0,1,0) (0,0,1)"},
        "directions nan": {"space": "RAS", "space directions": "(nan,0,0) (0,1,0) (0,0,1)"},
        "directions singular": {"space": "RAS", "space directions": "(1,0,0) (1,0,0) (0,0,1)"},
        "directions zero": {"space": "RAS", "space directions": "(0,0,0) (0,0,0) (0,0,0)"},
        "directions large": {"space": "RAS", "space directions": "(1e300,0,0) (0,1,0) (0,0,1)"},
        "origin two": {"space": "RAS", "space directions": vectors, "space origin": "(1,2)"},
        "origin inf": {"space": "RAS", "space directions": vectors, "space origin": "(inf,2,3)"},
        "origin none": {"space": "RAS", "space directions": vectors, "space origin": "none"},
        "space and spacings": {"space": "RAS", "spacings": "1 1 1"},
        "spacings nan": {"spacings": "1 nan 1"},
        "spacings zero": {"spacings": "1 0 1"},
        "spacings two": {"spacings": "1 1"},
        "ends only": {"axis mins": "0 0 0", "axis maxs": "1 1 1"},
        "centerings two": {"spacings": "1 1 1", "axis mins": "0 0 0", "centerings": "cell cell"},
        "two units": {"spacings": "1 1 1", "units": '"mm" "um" "m"'},
        "line skip negative": {"line skip": "-1"},
        "line skip many": {"line skip": "999999999"},
        "byte skip negative": {"byte skip": "-2"},
        "byte skip large": {"byte skip": "99999999999"},
        "byte skip of text": {"encoding": "text", "byte skip": "-1"},
        "byte skip letters": {"byte skip": "x"},
        "from the end": {"byte skip": "-1", "sizes": "20 30 40"},
        "no field": {"type": "short\nhello"},
        "twice": {"type": "short\nsizes: 2 3 4"},
    }
    for name, changes in others.items():
        cases[name] = nrrd(changes)
    skipped = nrrd({"byte skip": str(15 * 2**20), "encoding": "gzip"}, gzip.compress(BOMB))
    cases["bomb before the voxels"] = skipped
    cases["too new"] = nrrd(magic="NRRD0006")
    cases["no magic"] = nrrd(magic="")
    cases["no empty line"] = nrrd(data=b"").rstrip(b"\n")
    cases["UTF-16"] = nrrd().decode("latin-1").encode("utf-16")
    return cases


def _of_both() -> dict[str, Callable[[Path], object]]:
    """Return functions that write what is hostile under any name."""

    def sparse(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(2**30)

    return {
        "empty": lambda path: path.write_bytes(b""),
        "spaces": lambda path: path.write_bytes(b" " * 100_000),
        "empty lines": lambda path: path.write_bytes(b"\n" * 100_000),
        "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(100_000)),
        "zeros": sparse,
        "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe: \xff = \xfe\n" * 100),
        "pipe": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "loop": lambda path: path.symlink_to(path.name),
        "folder": lambda path: path.mkdir(),
        "missing": lambda path: None,
    }


def _writer(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def hostile() -> dict[str, Callable[[Path], object]]:
    """Return functions that write a hostile file each, by a name that ends in the file's ending."""
    writers: dict[str, Callable[[Path], object]] = {}
    for name, content in _metaimages().items():
        writers[f"{name}.mha"] = _writer(content)
    for name, content in _nrrds().items():
        writers[f"{name}.nrrd"] = _writer(content)
    for ending in (".mhd", ".nhdr"):
        for name, write in _of_both().items():
            writers[f"{name}{ending}"] = write
    return writers
