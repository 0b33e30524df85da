"""What reliability comes from where nobody says so: the error network of a calibrated teacher, else signals."""

from collections.abc import Iterator
from dataclasses import replace

from depthsieve.core.errors import StoreMismatch
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

    A calibration that is named counts; else the store's network; else the one that ships, where the signal ``network``
    is named or nobody names signals: it need not be trained for the teacher, see the study in docs/reliability.md. Else
    the signals by default: for metres, and where signals are to be kept or compared with a second teacher. Raises
    :class:`UsageError` for a file that is no network, :class:`StoreDamaged` where the store has lost its own,
    :class:`StoreMismatch` where its labels are of another quantity.
    """
    if options.calibration is not None:
        named = ErrorNetwork.load(expand(options.calibration))
        fits = named.reads(teacher.weights_digest, teacher.confidence_meaning)
        return replace(options, signals=NETWORK), named if fits else named.without_confidence()
    shipped = shipped_for(teacher)
    if options.signals is None:
        wants_signals = options.second_teacher is not None or bool(options.keep_signals)
        chosen = DEFAULT_SIGNALS if shipped is None or wants_signals else NETWORK
        options = replace(options, signals=chosen)
    if options.signal_names != (NETWORK,):
        return options, None
    if store is None or not has_labels(store):
        return options, shipped
    if store.spec.quantity != teacher.quantity:
        raise StoreMismatch(
            f"{store.location} holds labels of {store.spec.quantity}, and teacher {teacher.name!r} predicts "
            f"{teacher.quantity}; name a new store, or use the teacher it was made with"
        )
    return options, network_of(store.root, store.spec) or shipped


def has_labels(store: Store) -> bool:
    """Whether anything was planned with its label spec; an empty store takes any."""
    return bool(store.generations())


def uncalibrated_notes(work: LabelWork) -> Iterator[str]:
    """What a user should know of a new store, unless its network was trained for its teacher."""
    teacher, signals = work.teacher, ", ".join(work.signals)
    if work.network is not None:
        if not _trained_for(teacher, work.network):
            yield (
                f"reliability comes from an error network that was trained for another teacher than {teacher.name!r} "
                f"({work.network.version}); `depthsieve calibrate` trains one for it, --signals flip does without"
            )
    elif shipped_for(teacher) is not None:
        yield (
            f"reliability comes from signals ({signals}), since they are kept or a second teacher is named, and not "
            "from an error network; --signals network takes that"
        )
    elif shipped_network() is not None:
        yield (
            f"no error network comes with this release for a teacher of {teacher.quantity} such as {teacher.name!r}: "
            f"reliability comes from signals: {signals}; `depthsieve calibrate` trains one, which needs no extra pass"
        )
