"""MkDocs calls this when it builds: the reference of the config and of the losses."""

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from segpipe.config.checkpoint_tools import Card, Export, ImportNNUNet
from segpipe.config.compare import Compare
from segpipe.config.compose import chosen
from segpipe.config.evaluate import Evaluate
from segpipe.config.help import choices, page
from segpipe.config.predict import Predict
from segpipe.config.probe import Depth, Landscape, Lesion, Report, Robustness
from segpipe.config.section import Section
from segpipe.config.train import Loss, Train
from segpipe.registry import LOSSES

COMMANDS: dict[str, tuple[str, type[Section]]] = {
    "train": ("segpipe-train", Train),
    "predict": ("segpipe-predict", Predict),
    "evaluate": ("python -m segpipe.evaluate", Evaluate),
    "report": ("python -m segpipe.study", Report),
    "compare": ("python -m segpipe.study compare", Compare),
    "lesion": ("python -m segpipe.probe lesion", Lesion),
    "landscape": ("python -m segpipe.probe landscape", Landscape),
    "robustness": ("python -m segpipe.probe robustness", Robustness),
    "depth": ("python -m segpipe.probe depth", Depth),
    "card": ("python -m segpipe.card", Card),
    "export": ("python -m segpipe.export", Export),
    "import_nnunet": ("python -m segpipe.import_nnunet", ImportNNUNet),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds `reference/config.md` and `reference/losses.md`."""
    files.append(File.generated(config, "reference/config.md", content=_reference()))
    files.append(File.generated(config, "reference/losses.md", content=_losses()))
    return files


def _reference() -> str:
    lines = [
        "# Config",
        "",
        "What `--help` prints, made from the schema when these pages were built.",
        "`--help KEY`, `--help GROUP` and `--help GROUP=CHOICE` answer for one.",
    ]
    for program, (command, schema) in COMMANDS.items():
        if program != "train":
            lines += ["", f"## {command}", "", *_block(page(program, command, schema))]
            continue
        groups = chosen(program)
        for name, field in schema.model_fields.items():
            if name in groups or field.annotation in _sections(schema):
                lines += [
                    "",
                    f"## {command}: {name}",
                    "",
                    *_block(page(program, command, schema, [name])),
                ]
        alone = [
            name
            for name, field in schema.model_fields.items()
            if name not in groups | dict.fromkeys(_names(schema))
        ]
        lines += ["", f"## {command}: the rest", "", *_block(page(program, command, schema, alone))]
    return "\n".join(lines) + "\n"


def _losses() -> str:
    """Return the tables of presets, terms and options, made from `conf/loss` and the registry."""
    lines = ["# Losses", ""]
    lines += ["The loss is a weighted sum of terms; `loss=PRESET` sets the weights, and"]
    lines += ["`loss.TERM=WEIGHT` one of them. Terms work in 2D and 3D, on labels and on regions."]
    lines += ["", "| preset | for |", "|---|---|"]
    for choice in choices("loss"):
        lines.append(f"| `loss={choice.name}` | {choice.line} |")
    lines += ["", "| term | what it is |", "|---|---|"]
    for entry in LOSSES.entries().values():
        lines.append(f"| `loss.{entry.name}` | {entry.help} |")
    lines += ["", "| option | meaning |", "|---|---|"]
    for name, field in Loss.model_fields.items():
        lines.append(f"| `loss.{name}` | {field.description} |")
    return "\n".join(lines) + "\n"


def _sections(schema: type[Section]) -> list[type[Section]]:
    kinds = [field.annotation for field in schema.model_fields.values()]
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]


def _names(schema: type[Section]) -> list[str]:
    return [
        name for name, field in schema.model_fields.items() if field.annotation in _sections(schema)
    ]


def _block(text: str) -> list[str]:
    return ["```text", *text.splitlines(), "```"]
