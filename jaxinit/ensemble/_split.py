"""How a run is cut: seeds into chunks of one size, chunks into groups, groups to processes."""

from __future__ import annotations

import dataclasses

import numpy as np

#: Chunks are merged within at most so many groups, then the groups: processes exchange groups, not chunks.
_GROUPS = 256


@dataclasses.dataclass(frozen=True)
class Split:
    """`total` seeds in chunks of `size`, the last one shorter."""

    total: int
    size: int

    @staticmethod
    def of(total: int, chunk: int | None, batch: int, devices: int) -> Split:
        """The fewest rounds of at most `chunk` seeds a device, all chunks alike, whole batches where possible."""
        most = total if chunk is None else min(chunk, total)
        rounds = -(-total // (devices * most))
        size = -(-total // (devices * rounds))
        return Split(total, size if size <= batch else min(most, -(-size // batch) * batch))

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return -(-self.total // self.size)

    def bounds(self, chunk: int) -> tuple[int, int]:
        """Positions of the first seed of a chunk and of the one after its last."""
        return chunk * self.size, min((chunk + 1) * self.size, self.total)

    def group(self, chunk: int) -> int:
        """The group in which a chunk is merged; the same whatever devices and processes compute it."""
        return chunk // -(-self.chunks // _GROUPS)

    def of_process(self, owners: list[int], process: int) -> list[int]:
        """The chunks of a process: group g goes to the process that owns device g, round and round."""
        return [c for c in range(self.chunks) if owners[self.group(c) % len(owners)] == process]

    def filled(self, seeds: np.ndarray, chunks: list[int], places: int) -> tuple[np.ndarray, np.ndarray]:
        """Seeds for `places` devices, (places * size,), and how many of each device's count.

        A place without a chunk, and the rest of a short chunk, hold seeds that are computed and not counted.
        """
        rows = np.full((places, self.size), seeds[0], np.uint32)
        counts = np.zeros(places, np.int32)
        for row, chunk in enumerate(chunks):
            start, stop = self.bounds(chunk)
            rows[row, : stop - start] = seeds[start:stop]
            counts[row] = stop - start
        return rows.ravel(), counts
