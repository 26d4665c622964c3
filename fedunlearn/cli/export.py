"""Writing a model's weights for serving, out of a family's folder or a site's store."""

from pathlib import Path

from safetensors.torch import save

from fedunlearn.cli.console import out, print_json
from fedunlearn.errors import InputError
from fedunlearn.store import Store, write_atomically


def export(store: Store, model: str, version: str, file: Path, force: bool, as_json: bool) -> None:
    """Write one version as plain safetensors, its origin and classes in the file's metadata.

    Raises:
        InputError: the file exists and is not to be replaced, or is a folder.
        StoreError: the version is missing or damaged.
    """
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a file in it")
    if file.exists() and not force:
        raise InputError(f"{file}: exists already; choose another name, or --force")
    found = store.read(version)
    meta = {"fedunlearn_model": model, "fedunlearn_version": version, "classes": ",".join(found.head.classes)}
    write_atomically(file, save(found.weights, metadata=meta))
    if as_json:
        print_json({"model": model, "version": version, "file": str(file), "classes": list(found.head.classes)})
    else:
        out.print(f"{model} {version[:12]} -> {file}", markup=False)
