"""Some of the images of a source: those that a recipe says count."""

from collections.abc import Callable, Iterator

from depthsieve.records import ImageRecord, RejectedImage
from depthsieve.sources.ids import split_id
from depthsieve.sources.protocol import Listed, Passed, Source


class ChosenSource:
    """A source without the images whose path (an id behind the source's name) does not count.

    What the listing of the source refuses stays if the recipe is to tell of it: by default, if it would count. The rest
    is passed over, and counted as such. Reading knows no choice, so that what a store holds can be read for ever.
    """

    def __init__(
        self, source: Source, counts: Callable[[str], bool], tells_of: Callable[[str], bool] | None = None
    ) -> None:
        self._source = source
        self._counts = counts
        self._tells_of = tells_of or counts
        self.name = source.name
        self.root = source.root
        self.is_one_file = source.is_one_file
        self.at_once = source.at_once

    def __repr__(self) -> str:
        return f"ChosenSource({self._source!r})"

    def listing(self, passed: Passed) -> Iterator[Listed | RejectedImage]:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        for found in self._source.listing(passed):
            wanted = self._tells_of if isinstance(found, RejectedImage) else self._counts
            if wanted(split_id(found.id, self.name)):
                yield found
            else:
                passed.other += 1

    def look(self, listed: Listed) -> ImageRecord | RejectedImage:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        return self._source.look(listed)

    def is_there(self) -> bool:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        return self._source.is_there()

    def read(self, image_id: str) -> bytes:
        """See :class:`~depthsieve.sources.protocol.Source`."""
        return self._source.read(image_id)
