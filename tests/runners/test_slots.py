"""What the driver of a Ray run knows of the shards at a worker."""

from depthsieve.core.records import ShardTask
from depthsieve.runners.slots import Slot


def test_shards_on_their_way_to_the_store_leave_room_for_others_to_label() -> None:
    slot = Slot(actor=object(), ready=True)
    assert slot.free and slot.to_label == 0
    slot.window.extend((number, ShardTask(f"0000-{number:06d}")) for number in range(3))
    assert slot.to_label == 3 and not slot.free
    slot.sending = frozenset({"0000-000000", "0000-000002", "0000-000009"})
    assert slot.to_label == 1
    assert slot.take(0).shard_id == "0000-000000"
    assert slot.to_label == 1 and not slot.free
