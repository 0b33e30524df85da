"""What reliability comes from where nobody says so: the error network of a calibrated teacher, else signals."""

from collections.abc import Iterator
from dataclasses import replace

from depthsieve.labelling.batch import LabelWork
from depthsieve.planning.options import DEFAULT_SIGNALS, LabelOptions
from depthsieve.reliability.kinds import NETWORK
from depthsieve.reliability.network import ErrorNetwork, shipped_network
from depthsieve.storage import expand
from depthsieve.store import Store
from depthsieve.store.networks import network_of
from depthsieve.teachers import Teacher


def shipped_for(teacher: Teacher) -> ErrorNetwork | None:
    """The network of this release that can read the teacher's labels, trained for it or not, if there is one."""
    network = shipped_network()
    return network if network is not None and teacher.quantity == network.quantity else None


def _trained_for(teacher: Teacher, network: ErrorNetwork | None) -> bool:
    return network is not None and teacher.weights_digest in network.fitted_on


def choose_signals(
    options: LabelOptions, store: Store | None, teacher: Teacher
) -> tuple[LabelOptions, ErrorNetwork | None]:
    """The options with their signals filled in, and the error network that these need, if they do.

    A calibration that is named counts; else the store's network; else the one that ships: where the signal ``network``
    is named, and where nobody names signals and it was trained for this teacher. Else the signals by default, as also
    where signals are to be kept or compared with a second teacher. Raises :class:`UsageError` for a file that is no
    network, :class:`StoreDamaged` where the store has lost its own.
    """
    if options.calibration is not None:
        return replace(options, signals=NETWORK), ErrorNetwork.load(expand(options.calibration))
    shipped = shipped_for(teacher)
    if options.signals is None:
        wants_signals = options.second_teacher is not None or bool(options.keep_signals)
        chosen = NETWORK if _trained_for(teacher, shipped) and not wants_signals else DEFAULT_SIGNALS
        options = replace(options, signals=chosen)
    if options.signal_names != (NETWORK,):
        return options, None
    known = network_of(store.root, store.spec) if store is not None and has_labels(store) else None
    return options, known or shipped


def has_labels(store: Store) -> bool:
    """Whether anything was planned with its label spec; an empty store takes any."""
    return bool(store.generations())


def uncalibrated_notes(work: LabelWork) -> Iterator[str]:
    """What a user should know of a new store whose reliability comes from signals, once there are networks at all."""
    if work.network is not None or shipped_network() is None:
        return
    shipped = shipped_for(work.teacher)
    if _trained_for(work.teacher, shipped):
        yield (
            f"reliability comes from signals ({', '.join(work.signals)}), since they are kept or a second teacher is "
            "named, and not from this teacher's error network; --signals network takes that"
        )
    else:
        other = "; --signals network takes another teacher's" if shipped is not None else ""
        yield (
            f"teacher {work.teacher.name!r} has no error network, so reliability comes from signals: "
            f"{', '.join(work.signals)}; `depthsieve calibrate` trains one, which needs no extra pass{other}"
        )
