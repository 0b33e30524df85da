"""Verify a store and repair what is damaged: copies, records, the index, and shards, which are labelled again."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc

from depthsieve.core.errors import DepthsieveError, RunError, StoreBusy, StoreDamaged
from depthsieve.core.processes import Process, cores
from depthsieve.core.progress import progress_bar
from depthsieve.core.records import ImageFailure, LabelJob, Shard, digest_of, seal, unseal
from depthsieve.jobs.committing import ShardMaker
from depthsieve.jobs.fuse.shards import ShardFuser, open_parents
from depthsieve.jobs.importing.maps import reopen_maps
from depthsieve.jobs.importing.settings import KIND
from depthsieve.jobs.importing.shards import ShardImporter
from depthsieve.jobs.verify.findings import Finding, Inspection, Look
from depthsieve.jobs.verify.inspect import check_is_store, inspect_store
from depthsieve.jobs.verify.inspect_layers import inspect_layers
from depthsieve.jobs.verify.repair_layers import TakenOut, repair_layers
from depthsieve.labelling.metric import metric_request
from depthsieve.labelling.shard import Care, ShardLabeller, Watch
from depthsieve.storage import Root, open_root
from depthsieve.store import Store, open_store, plan, schema
from depthsieve.store.arrays import ShardReader
from depthsieve.store.create import add_generation, write_index
from depthsieve.store.layer_kinds import IMAGES, METRIC, SIGNALS
from depthsieve.store.layers import Layer, find_layer
from depthsieve.store.leases import PLAN, Leases, left_leases
from depthsieve.store.standing import standing
from depthsieve.store.stored_images import quality_of
from depthsieve.store.writer import CommitContext, ShardArrays, commit_body, publish_group, whole_group


@dataclass(frozen=True)
class VerifyReport:
    """What :func:`verify` read and found. ``findings`` are those before a repair, ``left`` those after it (the same
    where none was asked for), ``relabelled`` counts images that a repair labelled again, ``failed`` are images whose
    labelling failed. ``taken_out`` are the shards that a repair took out of layers, since their files were damaged."""

    store: str
    shards: int
    images: int
    files: int
    bytes: int
    findings: tuple[Finding, ...]
    left: tuple[Finding, ...]
    relabelled: int
    failed: tuple[ImageFailure, ...]
    taken_out: tuple[TakenOut, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is left that costs a label."""
        return all(finding.harmless for finding in self.left)


def verify(store: str | Path, *, repair: bool = False, progress: bool = True) -> VerifyReport:
    """Read every byte of a store and report what is damaged, missing or left over; with ``repair``, repair it.

    A repair restores the sound one of two copies, rewrites records and index, removes what dead processes left, and
    labels again only the shards that are damaged, with the teacher that the plan names. Files of a shard are only
    replaced by files of equal decoded content; where labels come out otherwise, the images whose labels are damaged are
    planned and labelled in a new generation. A shard whose files of a layer are damaged is taken out of the layer: see
    :attr:`VerifyReport.taken_out`.

    Args:
        store: path or URL of the store.
        repair: repair what can be repaired; without it nothing is written.
        progress: show a bar on stderr, or in the notebook.

    Raises:
        StoreNotFound: no store there.
        StoreBusy: a repair while another process works on the store.
        RunError: a repair that cannot label a shard again, or cannot write; what is repaired stays repaired.
    """
    root = open_root(store)
    if not repair:
        seen = _inspect(root, progress, "verify")
        return _report(root, seen, seen, 0)
    check_is_store(root)
    with Leases(root) as leases:
        lease = leases.take_or_raise(PLAN)
        try:
            _check_nobody_works(root)
            first = _inspect(root, progress, "verify", repairing=True)
            if not first.findings:
                return _report(root, first, first, 0)
            root.clear_scratch()
            relabelled, taken_out = _repair(root, first.findings, progress)
        except DepthsieveError:
            raise
        except OSError as error:
            raise RunError(f"{root.location}: {error.strerror or error}; what is repaired stays repaired") from error
        finally:
            leases.give_back(lease, settled=True)
    last = _inspect(root, progress, "verify again")
    return replace(_report(root, first, last, relabelled), taken_out=tuple(taken_out))


def _check_nobody_works(root: Root) -> None:
    """Raise :class:`StoreBusy` while another process labels a part: what it is about to commit is not an orphan."""
    me = Process.current()
    others = {str(lease.holder) for lease in left_leases(root) if lease.alive and lease.holder != me}
    if others:
        raise StoreBusy(f"{root.location} is being labelled by {', '.join(sorted(others))}; wait until it has ended")


def _inspect(root: Root, progress: bool, what: str, repairing: bool = False) -> Inspection:
    with progress_bar(what, unit="shards", shown=progress) as bar:
        return inspect_store(root, bar.update, repairing)


def _report(root: Root, first: Inspection, last: Inspection, relabelled: int) -> VerifyReport:
    failed: tuple[ImageFailure, ...] = ()
    with contextlib.suppress(DepthsieveError, OSError):  # of a damaged store, whose damage is named
        failed = standing(open_store(root)).unlabelled
    size = (first.shards, first.images, first.files, first.bytes)
    left = [_superseded(root, finding) for finding in last.findings]
    found = left if first is last else first.findings
    return VerifyReport(root.location, *size, tuple(found), tuple(left), relabelled, failed)


def _repair(root: Root, findings: list[Finding], progress: bool) -> tuple[int, list[TakenOut]]:
    """Repair what can be: copies first, then labels, then layers. Returns how many images were labelled again, and what
    layers lost."""
    for finding in findings:
        if finding.remedy == "restore":
            _restore(root, finding.key)
        elif finding.remedy == "index":
            root.remove(schema.INDEX_RECORD)  # so that it counts as out of date
        elif finding.remedy == "remove":
            root.remove_folder(finding.key) if root.entry(finding.key) is None else root.remove(finding.key)
    try:
        store = open_store(root)
    except StoreDamaged:  # both copies of the root document: the report says so, and nothing else can be done
        return 0, []
    again: dict[str, list[str]] = {}
    for finding in findings:
        if finding.shard and finding.remedy == "relabel":
            again.setdefault(finding.shard, []).append(finding.key)
    for finding in findings:
        if finding.remedy == "record" and finding.shard and not _rewrite_record(store, finding.shard):
            root.remove(finding.key)  # no whole group that it could have named is left: the shard is pending again
            again[finding.shard] = []
    done = _label_again(store, again, progress)
    write_index(open_store(root))
    if again:  # what layers hold may belong to labels that were replaced
        look = Look(root, Process.current())
        inspect_layers(look, store)
        findings = look.seen.findings
    return done, repair_layers(store, findings)


def _restore(root: Root, key: str) -> None:
    """Replace a damaged file by its other copy."""
    original = key.removeprefix(schema.copy_key(""))
    other = schema.copy_key(key) if key == original else original
    root.write(key, root.read(other))


def _rewrite_record(store: Store, shard_id: str) -> bool:
    """Rewrite the commit record of a shard from the one group whose files have the digest in its name."""
    damaged = store.root.read(schema.commit_key(shard_id)).decode(errors="replace")
    found = whole_group(store.root, schema.SHARDS, shard_id, damaged)
    if found is None:
        return False
    group, listed = found
    (generation,) = (one for one in store.generations() if one.number == schema.shard_number(shard_id)[0])
    reader = ShardReader(store.root, schema.group_key(group))
    content = ShardArrays({spec.name: reader.whole(spec) for spec in (*schema.MAPS, *schema.ROWS)})
    profile, spec = digest_of(generation.profile.to_json()), store.spec
    context = CommitContext.of(spec, profile)
    body = commit_body(store.planned_shard(shard_id), content, context, group, listed)
    store.root.write(schema.commit_key(shard_id), seal(body))
    return True


def _label_again(store: Store, damaged: dict[str, list[str]], progress: bool) -> int:
    """Label shards again, each to the content that was committed, else in a new generation. ``damaged`` has the damaged
    files of each shard."""
    done, faults = 0, []
    with progress_bar("label again", total=len(damaged), unit="shards", shown=progress) as bar:
        for shard_id in sorted(damaged):
            try:
                if store.is_committed(shard_id):
                    done += _replace_files(store, shard_id, damaged[shard_id])
                else:
                    done += _label(store, shard_id)
            except RunError as error:  # it costs no other shard its labels
                faults.append(str(error))
            bar.update()
    if faults:
        raise RunError(faults[0] + (f" (and {len(faults) - 1} more shards)" if len(faults) > 1 else ""))
    return done


def _labeller(store: Store, shard_id: str, kept_failures: dict[int, str]) -> ShardLabeller | ShardMaker:
    (generation,) = (one for one in store.generations() if one.number == schema.shard_number(shard_id)[0])
    if store.spec.kind == KIND:
        return _importer(store, shard_id)
    if generation.teacher is None:
        return _fuser(store, shard_id)
    sources = tuple(store.sources().items())
    signals, images, metric = (_layer(store, name) for name in (SIGNALS, IMAGES, METRIC))
    job = LabelJob(
        store.location,
        generation.teacher,
        store.fingerprint,
        store.spec.signals,
        sources,
        keep_signals=signals is not None,
        image_quality=None if images is None else quality_of(images.spec),
        metric=None if metric is None else metric_request(metric.spec.detail or {}),
    )
    # An image that failed keeps its failure: it may be one that ends the process that decodes it.
    care = Care(lambda step, rows: None, kept_failures) if kept_failures else None
    return ShardLabeller(job, watch=Watch(care=care))


def _layer(store: Store, name: str) -> Layer | None:
    with contextlib.suppress(DepthsieveError):  # one that is beyond repair counts as none
        return find_layer(store.root, name, store.fingerprint)
    return None


def _fuser(store: Store, shard_id: str) -> ShardFuser:
    try:
        return ShardFuser(store, open_parents(store), cores())
    except DepthsieveError as error:
        raise RunError(
            f"shard {shard_id} cannot be fused again: {error}; if those stores have moved, run `depthsieve "
            f"fuse` with their places and -o {store.location} first"
        ) from error


def _importer(store: Store, shard_id: str) -> ShardImporter:
    (location,) = store.generations()[-1].parents
    try:
        return ShardImporter(store, reopen_maps(location, store.spec), cores())
    except DepthsieveError as error:
        raise RunError(
            f"shard {shard_id} cannot be imported again: {error}; if the maps have moved, run `depthsieve import` with "
            f"their place and {store.location} first"
        ) from error


def _label(store: Store, shard_id: str) -> int:
    result = _labeller(store, shard_id, {})(shard_id)
    if result.error:
        raise RunError(f"shard {shard_id} cannot be labelled again: {result.error}")
    return result.labelled


def _replace_files(store: Store, shard_id: str, damaged: list[str]) -> int:
    """Replace the files of a damaged group by files of equal content; where labels come out otherwise, plan the damaged
    ones again."""
    record = store.commit_record(shard_id)
    failures = {failure["row"]: failure["reason"] for failure in record["failures"]}
    try:
        shard, content, context = _labeller(store, shard_id, failures).label_only(shard_id)
    except (OSError, StoreDamaged) as error:  # of the images' disk, or of a store that labels are fused of
        raise RunError(
            f"shard {shard_id} cannot be labelled again: {getattr(error, 'strerror', '') or error}"
        ) from error
    if content.content_digest() != record["content_sha256"]:
        return _plan_again(store, shard, record["group"])
    for key in damaged:
        if key != schema.commit_key(shard_id):
            store.root.remove(key)
    body = publish_group(store.root, shard, content, context)
    if body["group"] != record["group"]:  # packed by another release of the codecs
        store.root.write(schema.commit_key(shard_id), seal(body))
        store.root.remove_folder(schema.group_key(record["group"]))
    return len(shard.images) - len(failures)


def _plan_again(store: Store, shard: Shard, group: str) -> int:
    """Plan the images of a shard whose labels cannot be read as "replace" rows of a new generation; label them."""
    rows = _unreadable_rows(store, shard, group)
    generations = store.generations()
    (before,) = (one for one in generations if one.number == schema.shard_number(shard.id)[0])
    name = schema.shard_name(len(generations), 0)
    images = tuple(shard.images[row] for row in rows)
    table = plan.PlannedShard(Shard(name, shard.shape, images), ("replace",) * len(images)).table()
    planned = store.planned_rows(shard.id).take(rows)
    for field in plan.MADE_OF:
        if field.name in planned.column_names:
            table = table.append_column(field.name, planned[field.name])
    nothing = (plan.rejected_table([]), plan.removed_table([]))
    made_by = before.teacher or generations[-1].parents
    add_generation(store, [table], *nothing, store.sources(), before.profile, made_by)
    return _label(store, name)


def _unreadable_rows(store: Store, shard: Shard, group: str) -> list[int]:
    """Rows whose maps fail their checksums; all rows where the damage is not in single maps."""
    everything = list(range(len(shard.images)))
    try:
        reader = store.reader(shard.id)
        for spec in schema.ROWS:
            reader.column(spec.name)
    except (DepthsieveError, OSError):
        return everything
    rows = [row for row in everything if not _reads(reader, row)]
    return rows or everything


def _reads(reader: ShardReader, row: int) -> bool:
    try:
        reader.depth(row), reader.reliability(row)
    except StoreDamaged:
        return False
    return True


def _superseded(root: Root, finding: Finding) -> Finding:
    """A finding about a shard; as a harmless one if all images that it damaged have newer labels."""
    if finding.harmless or finding.remedy != "relabel" or finding.shard is None:
        return finding
    with contextlib.suppress(DepthsieveError, OSError):
        store = open_store(root)
        record = unseal(root.read(schema.commit_key(finding.shard)), finding.key)
        shard = store.planned_shard(finding.shard)
        damaged = [shard.images[row].id for row in _unreadable_rows(store, shard, record["group"])]
        index = store.index()
        standing_here = index.filter(pc.equal(index["shard"], finding.shard))["id"].to_pylist()
        if not set(damaged) & set(standing_here):
            return Finding(finding.key, f"{finding.problem}; it has newer labels", "none", True, finding.shard)
    return finding
