"""The wires between hosts and the switch in the middle: each frame passes through here, where it can be held or lost.

It stands for ``tc netem``, which not every kernel has, and for a bridge with virtual cards.
"""

import contextlib
import fcntl
import heapq
import os
import random
import selectors
import struct
import threading
import time

TUNSETCARRIER = 0x400454E2
LARGEST_FRAME = 65_600
BROADCAST = 1
"""The bit of a frame's first byte that sends it to all."""


class Wire:
    """The wire of one host. What is set here holds for frames in both directions, from the next one on."""

    def __init__(self, tap: int, mac: bytes) -> None:
        self.tap = tap
        self.mac = mac
        self.delay_s = 0.0
        """Seconds that each frame takes; a round trip takes twice that."""
        self.loss = 0.0
        """The share of frames that are lost."""
        self.muted = False
        """All frames are lost, and nobody is told: the card has its carrier."""
        self._up = True

    @property
    def up(self) -> bool:
        """Whether the wire is plugged in; the host's own card knows."""
        return self._up

    @up.setter
    def up(self, up: bool) -> None:
        self._up = up
        fcntl.ioctl(self.tap, TUNSETCARRIER, struct.pack("i", up))

    def carries(self, chance: random.Random) -> bool:
        """Whether the next frame gets through."""
        return self._up and not self.muted and (not self.loss or chance.random() >= self.loss)


class Switch:
    """Carries the frames between wires, in a thread of its own."""

    def __init__(self) -> None:
        self._wires: dict[bytes, Wire] = {}
        self._chance = random.Random(0)
        self._late: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = os.pipe()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def plug(self, wire: Wire) -> None:
        """Carry this wire's frames, too."""
        with self._lock:
            self._wires[wire.mac] = wire
            self._selector.register(wire.tap, selectors.EVENT_READ, wire)

    def unplug(self, wire: Wire) -> None:
        """Forget a wire, and close its end."""
        with self._lock:
            if self._wires.pop(wire.mac, None):
                self._selector.unregister(wire.tap)
                os.close(wire.tap)

    def stop(self) -> None:
        """End the thread and all wires."""
        os.write(self._waker, b"x")
        self._thread.join()
        for wire in list(self._wires.values()):
            self.unplug(wire)
        self._selector.close()
        os.close(self._wake)
        os.close(self._waker)

    def _run(self) -> None:
        while True:
            wait = max(0.0, self._late[0][0] - time.monotonic()) if self._late else 0.05
            for key, _ in self._selector.select(min(wait, 0.05)):
                if key.data is None:
                    return
                with self._lock:
                    if key.data.mac in self._wires:
                        self._take(key.data)
            with self._lock:
                self._deliver()

    def _take(self, wire: Wire) -> None:
        """Read what a host has sent."""
        for _ in range(64):
            try:
                frame = os.read(wire.tap, LARGEST_FRAME)
            except OSError:
                return
            everybody = frame[0] & BROADCAST
            to = [*self._wires.values()] if everybody else filter(None, [self._wires.get(frame[:6])])
            for other in to:
                if other is not wire and wire.carries(self._chance) and other.carries(self._chance):
                    self._send(other.tap, frame, wire.delay_s + other.delay_s)

    def _send(self, tap: int, frame: bytes, delay_s: float) -> None:
        if delay_s:
            self._count += 1
            heapq.heappush(self._late, (time.monotonic() + delay_s, self._count, tap, frame))
        else:
            with contextlib.suppress(OSError):
                os.write(tap, frame)

    def _deliver(self) -> None:
        while self._late and self._late[0][0] <= time.monotonic():
            _, _, tap, frame = heapq.heappop(self._late)
            with contextlib.suppress(OSError):
                os.write(tap, frame)
