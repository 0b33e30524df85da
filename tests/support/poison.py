"""Images that end the process that labels them, made from outside: a module that Python loads by itself at its start.

It replaces the decoder, or the forward pass, by one with a bug that a certain image brings out. Product code knows
nothing of it, and it lives only in processes that are given :func:`poisoned` as their environment.
"""

import hashlib
import json
import os
from pathlib import Path

SITECUSTOMIZE = '''
import hashlib, json, os, signal, time
from pathlib import Path

HERE = Path(__file__).parent
POISON = json.loads((HERE / "poison.json").read_text())


def swallow(what):
    """The bug: the first ``times`` times that it is met, or always."""
    met = HERE / what["name"]
    count = met.stat().st_size if met.exists() else 0
    with met.open("a") as file:
        file.write("x")
    if what["times"] is not None and count >= what["times"]:
        return
    if what["does"] == "hang":
        time.sleep(3600)
    if what["does"] == "wait":
        while not (HERE / "go").exists():
            time.sleep(0.02)
        return
    if what["does"] == "raise":
        raise RuntimeError("internal assert 0x7f%d" % os.getpid())
    if what["does"] == "exit":
        os._exit(7)
    os.kill(os.getpid(), getattr(signal, what["does"]))
    time.sleep(3600)


import depthsieve.images.decode
decode = depthsieve.images.decode.decode


def poisoned_decode(data, *more, **options):
    what = POISON.get(hashlib.sha256(data).hexdigest()) or POISON.get("any")
    if what and what["where"] == "decode":
        swallow(what)
    return decode(data, *more, **options)


depthsieve.images.decode.decode = poisoned_decode

if any(what["where"] == "predict" for what in POISON.values()):
    from depthsieve.labelling import predicting
    predict = predicting.predict

    def poisoned_predict(teacher, batch):
        white = (batch.image[:, 0] > 2).flatten(1).all(1)
        what = next(what for what in POISON.values() if what["where"] == "predict")
        if white.any() or what["name"] == "any":
            swallow(what)
        return predict(teacher, batch)

    predicting.predict = poisoned_predict
'''


def poison(folder: Path, image: Path | None, does: str, where: str = "decode", times: int | None = None) -> None:
    """Make ``image`` do something to each process that decodes it, or whose teacher sees it (then it must be white).
    Without one, all images do.

    ``does``: the name of a signal, "exit", "raise", "hang", or "wait", which ends when :func:`let_go` says so: a run
    that is to be met half way never gets past it. ``times``: how often it does so, before it is well.
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    known = folder / "poison.json"
    entries = json.loads(known.read_text()) if known.exists() else {}
    digest = hashlib.sha256(image.read_bytes()).hexdigest() if image else "any"
    entries[digest] = {"does": does, "where": where, "times": times, "name": digest}
    known.write_text(json.dumps(entries))


def let_go(folder: Path) -> None:
    """What waits goes on, now and later."""
    (folder / "go").touch()


def met(folder: Path, image: Path) -> int:
    """How often the bug was met."""
    path = folder / hashlib.sha256(image.read_bytes()).hexdigest()
    return path.stat().st_size if path.exists() else 0


def poisoned(folder: Path) -> dict[str, str]:
    """The environment of processes that the poison works in."""
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
