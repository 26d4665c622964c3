"""Which code of the user's own something is: a hash of the files that it is written in.

Files are found by reading import statements, not by looking at what is loaded: what a function imports only when it is called
counts as well, and the same files give the same hash in every process.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from blake3 import blake3

OTHERS = sys.stdlib_module_names | {"fedunlearn", "torch"}  # whose versions a result names, or need not name
INSTALLED = {"site-packages", "dist-packages"}  # what lies there is not followed: everything else that is installed lies there


def text_of(modules: Iterable[str]) -> str:
    """One hash of the files of some modules, and of those that they import from the folder or package that they lie in.

    Of Python, torch and this package nothing is read, nor are data files and what is imported from elsewhere.

    Args:
        modules: their names; of one file that imports nothing beside it, it is the file's hash. A package that has the
            module is imported for that, the module itself is not.

    Returns:
        Hexadecimal digits; nothing where there is no file, as of what was made in a session.
    """
    texts: dict[Path, bytes] = {}
    for name in modules:
        if name.partition(".")[0] not in OTHERS and (file := _file_of(name)) is not None:
            _collect(file, name, texts)
    hashes = sorted({blake3(text).hexdigest() for text in texts.values()})
    return hashes[0] if len(hashes) == 1 else blake3("\n".join(hashes).encode()).hexdigest() if hashes else ""


def _file_of(name: str) -> Path | None:
    if name in sys.modules:
        found = getattr(sys.modules[name], "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # whoever imports it says so
            spec = None
        found = spec.origin if spec is not None else None
    return Path(found).resolve() if found and Path(found).is_file() else None


def _collect(file: Path, name: str, texts: dict[Path, bytes]) -> None:
    """The text of a module, and of those it imports that lie in the same folder as the outermost package (or module) of it."""
    package = file.name == "__init__.py"
    root = file.parents[min(name.count(".") + package, len(file.parents) - 1)]
    todo = [(file, name if package else name.rpartition(".")[0])]
    while todo:
        file, within = todo.pop()
        if file in texts:
            continue
        texts[file] = file.read_bytes()
        for imported in _imported(texts[file], within) if INSTALLED.isdisjoint(root.parts) else ():
            todo += [(found, of) for found, of in _beside(imported, root) if found not in texts]


@lru_cache(maxsize=1024)
def _imported(text: bytes, within: str) -> tuple[str, ...]:
    """All modules that a text names in its imports, and what may be modules."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # compiled, or broken: whoever imports it says so
        return ()
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = within.split(".")[: len(within.split(".")) - node.level + 1] if node.level and within else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found += [base, *(f"{base}.{one.name}" for one in node.names)]
    return tuple(name for name in dict.fromkeys(found) if name and not name.startswith("."))


def _beside(name: str, root: Path) -> Iterator[tuple[Path, str]]:
    """Files of a module, and of the packages that it is in, with the package that each is in, where they lie under a folder."""
    parts = name.split(".")
    if parts[0] in OTHERS:
        return
    for i in range(1, len(parts) + 1):
        folder = root.joinpath(*parts[:i])
        if (file := folder / "__init__.py").is_file():
            yield file, ".".join(parts[:i])
        elif (file := folder.with_name(f"{folder.name}.py")).is_file():
            yield file, ".".join(parts[: i - 1])
