"""Jobs as they stand in files: several to a file, paths from the file's folder, Serve's own files.

The controller and the workers run elsewhere, so what a file names is resolved here: relative paths
become absolute, and of a Serve config file the one application is sent.
"""

import difflib
from pathlib import Path
from typing import Any

from wattshift_cluster.api.bodies import load_documents, load_table
from wattshift_cluster.cli.output import talk
from wattshift_cluster.errors import ConfigInvalid, Fault, NotFound

PATH_KEYS = ("input", "output")
NOT_CARRIED = ("http_options", "proxy_location", "grpc_options", "target_capacity")
"""Keys of a Serve config file that are about the whole cluster, not about one application."""


def load_jobs(path: Path) -> list[object]:
    """Return every job of a file, as written but for its paths. Raises ConfigInvalid, NotFound."""
    documents = load_documents(path)
    if len(documents) == 1 and isinstance(documents[0], list):
        documents = list(documents[0])
    folder = path.absolute().parent
    return [resolved(raw, folder, str(path)) for raw in documents]


def resolved(raw: object, folder: Path, source: str) -> object:
    """Return a job whose relative paths start at `folder`, and with its Serve application read."""
    if not isinstance(raw, dict):
        return raw
    moved: dict[str, Any] = dict(raw)
    for key in PATH_KEYS:
        if isinstance(raw.get(key), str) and raw[key]:
            moved[key] = str(folder / raw[key])
    folders = raw.get("python_path")
    if isinstance(folders, list):
        moved["python_path"] = [
            str(folder / one) if isinstance(one, str) else one for one in folders
        ]
    named = raw.get("serve_config")
    if isinstance(named, str) and named:
        if raw.get("serve_app") is not None or raw.get("import_path") is not None:
            told = "give one of serve_config, serve_app and import_path"
            raise ConfigInvalid([Fault(source, "serve_config", named, told)])
        moved["serve_app"] = serve_app(named, folder, source)
        del moved["serve_config"]
    return moved


def serve_app(named: str, folder: Path, source: str) -> dict[str, Any]:
    """Return one application of a Serve config file, `FILE` or `FILE#APPLICATION`.

    Raises:
        ConfigInvalid: the file holds none of that name, or several and none was named.
        NotFound: there is no such file.
    """

    def wrong(message: str) -> ConfigInvalid:
        return ConfigInvalid([Fault(source, "serve_config", named, message)])

    file, _, name = named.partition("#")
    path = folder / file
    try:
        whole = load_table(path)
    except NotFound:
        raise wrong(f"no file {path}") from None
    if not isinstance(whole, dict):
        raise wrong("is no Serve config file: it holds no table")
    # Before Ray 2.1 a file was one application, and such files are still about.
    listed = whole.get("applications", [whole] if "import_path" in whole else None)
    apps = [app for app in listed if isinstance(app, dict)] if isinstance(listed, list) else []
    names = [str(app.get("name", "default")) for app in apps]
    if not apps:
        raise wrong("is no Serve config file: it has no applications")
    if not name and len(apps) > 1:
        raise wrong(f"holds {len(apps)} applications; name one: {file}#{names[0]} ({_list(names)})")
    if name and name not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise wrong(f"no application {name}{hint} (there are: {_list(names)})")
    left = [key for key in NOT_CARRIED if key in whole]
    if left:
        talk(f"note: {', '.join(left)} of {file} hold for all of Serve and are not carried over")
    return dict(apps[names.index(name)] if name else apps[0])


def _list(names: list[str]) -> str:
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
