"""Writing a model's weights for serving, out of a family's folder or a site's store; telling a file that was written."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from safetensors import SafetensorError, safe_open

from fedunlearn.cli.console import one_line, out, print_json
from fedunlearn.cli.options import Folder, Json
from fedunlearn.cli.say import opened
from fedunlearn.cli.state import here
from fedunlearn.errors import InputError, unknown
from fedunlearn.runtime import STATES, Family, cut, origins, refuse_cut, sealed_away
from fedunlearn.store import Store, write_atomically
from fedunlearn.store.files import file_of, tensors_in

MODEL, VERSION = "fedunlearn_model", "fedunlearn_version"  # in the metadata of a file


def export(
    folder: Folder,
    model: Annotated[str, typer.Argument(help="name of a model")],
    file: Annotated[Path, typer.Argument(help="where to write: a safetensors file")],
    version: Annotated[str | None, typer.Option(help="another version than the current one, for example a candidate")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the file if it exists")] = False,
    as_json: Json = False,
) -> None:
    """Write a model's weights for serving; plain safetensors and torch read them."""
    family = opened(folder)
    refuse_cut(family)
    node = family.lineage[model]
    heads = family.heads
    if model not in heads:
        raise InputError(f"model {model!r} is retired: its weights are gone; kept are: {', '.join(heads)}")
    held = family.store(node.home)
    name = heads[model]
    if version is not None:
        given = {v for x in family.ledger.lines for k in ("heads", "pending") if (v := x.body.get(k, {}).get(model))}
        fits = [v for v in given if v.startswith(version)]
        if len(fits) != 1:
            raise unknown(f"version of {model}", version, (v[:12] for v in given))
        name = fits[0]
    if (by := sealed_away(family).get(name)) is not None:
        raise InputError(
            f"{model} {name[:12]}: erased; ledger line {by.number} sealed it, so it is not given out, even where a file of it "
            f"is (still or again) there: fedunlearn fsck tells, fedunlearn settle and gc erase it"
        )
    if name not in held.versions() and node.home not in here(folder):
        raise InputError(
            f"{model}: its weights are not in {folder} but at its home {node.home!r}; there: fedunlearn site export "
            f"site.yaml {model} FILE, or for the coordinator's own this command with the family's folder there"
        )
    write_weights(held, model, name, file, force, as_json)


def write_weights(store: Store, model: str, version: str, file: Path, force: bool, as_json: bool) -> None:
    """Write one version as plain safetensors, its origin and classes in the file's metadata; the same bytes every time.

    Raises:
        InputError: the file exists and is not to be replaced, or is a folder.
        StoreError: the version is missing or damaged.
    """
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a file in it")
    if file.exists() and not force:
        raise InputError(f"{file}: exists already; choose another name, or --force")
    found = store.read(version)
    meta = {MODEL: model, VERSION: version, "classes": ",".join(found.head.classes)}
    write_atomically(file, file_of(found.weights, meta))
    if as_json:
        print_json({"model": model, "version": version, "file": str(file), "classes": list(found.head.classes)})
    else:
        out.print(f"{model} {version[:12]} -> {file}", markup=False)


def identify(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="a safetensors file, as `export` writes it")],
    as_json: Json = False,
) -> None:
    """Which version of which model a file of weights is, and whether that is in force. Exit status 1 if it is none of them."""
    family = Family.open(folder)
    weights, said = _read(file)
    found = origins(family, weights)
    claim = (said[MODEL], said[VERSION]) if {MODEL, VERSION} <= said.keys() else None
    wrong = [words] if (words := cut(family)) else []
    if not found:
        wrong.append(
            f"{file}: is no version of a model of {folder}: the ledger names none that has these {len(weights)} tensors"
        )
    if claim and claim not in [(one.model, one.version) for one in found]:
        wrong.append(f"{file}: says that it is {claim[0]} {claim[1][:12]}, whose weights are others")
    if as_json:
        told: dict[str, Any] = {"file": str(file), "found": [vars(one) for one in found], "wrong": wrong}
        print_json(told)
        raise typer.Exit(1 if wrong else 0)
    lines = family.ledger.lines
    for one in found:
        made = f"made by ledger line {one.line} ({lines[one.line].kind}, {lines[one.line].time})"
        out.print(f"{one.model} {one.version[:12]}: {STATES[one.state].format(by=one.by)}; {one_line(made)}", markup=False)
    for text in wrong:
        out.print(f"[bold red]wrong:[/bold red] {escape(one_line(text))}")
    raise typer.Exit(1 if wrong else 0)


def _read(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors of a file, and what it says of itself."""
    try:
        weights = tensors_in(file.read_bytes())
        with safe_open(file, framework="pt") as held:
            return weights, held.metadata() or {}
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, SafetensorError) as error:
        raise InputError(f"{file}: {error}; expected a file as fedunlearn export writes it") from error
