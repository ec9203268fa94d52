"""After `warmup` an engine's memory lies in huge pages, and nothing else is changed."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tiny_bundles import tiny_model, write_bundle

from effnet_edge import EngineRunner
from effnet_edge.bench.models import bench_models
from effnet_edge.runtime import backend, huge_pages, runner
from effnet_edge.runtime.huge_pages import EngineMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from effnet_edge.runtime.backend import Backend, EngineSpec

BLOCK = huge_pages._huge_page_size()
BLOCKS = 6

needs_huge_pages = pytest.mark.skipif(not BLOCK, reason="this machine gives no huge pages")
needs_choice = pytest.mark.skipif(
    not BLOCK or "[always]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(),
    reason="this machine gives huge pages to all programs, or to none",
)


class Memory:
    """`BLOCKS` blocks and what is around them, with every `step`th page filled."""

    def __init__(self, step: int = 1) -> None:
        self._map = mmap.mmap(-1, (BLOCKS + 1) * BLOCK, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.bytes = np.frombuffer(self._map, np.uint8)
        self.fill(step)

    def fill(self, step: int = 1) -> None:
        pages = self.bytes.reshape(-1, mmap.PAGESIZE)[::step]
        pages[:] = np.arange(len(pages))[:, None] % 251 + 1

    @property
    def blocks(self) -> list[int]:
        """The addresses of those that lie in it as a whole."""
        start = self.bytes.ctypes.data
        first = -(-start // BLOCK) * BLOCK
        return list(range(first, start + len(self.bytes) - BLOCK + 1, BLOCK))

    @property
    def huge(self) -> int:
        """How many huge pages it has."""
        found, inside = 0, False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            name, *rest = line.split()
            if "-" in name and not name.endswith(":"):
                start, _, end = name.partition("-")
                inside = int(start, 16) <= self.blocks[0] < int(end, 16)
            elif inside and name == "AnonHugePages:":
                found += int(rest[0]) * 1024 // BLOCK
        return found


class Asked:
    """The C library, with a record of the blocks that are to become huge pages."""

    def __init__(self, libc: Callable[[], object], answer: int | None) -> None:
        self.blocks: list[int] = []
        self._answer = answer
        self._libc = libc()
        self.mincore = self._libc.mincore

    def madvise(self, address: int, size: int, advice: int) -> int:
        assert (size, advice) == (BLOCK, 25)
        self.blocks.append(address)
        return self._libc.madvise(address, size, advice) if self._answer is None else self._answer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Asked:
    asked = Asked(huge_pages._libc, getattr(request, "param", None))
    monkeypatch.setattr(huge_pages, "_libc", lambda: asked)
    return asked


@needs_huge_pages
def test_what_is_filled_afterwards_moves_and_keeps_its_values(asked: Asked) -> None:
    engine = EngineMemory()
    memory = Memory()
    before = memory.bytes.copy()

    moved = engine.use_huge_pages()

    assert set(memory.blocks) <= set(asked.blocks)
    assert memory.huge >= BLOCKS
    assert moved >= BLOCKS
    np.testing.assert_array_equal(memory.bytes, before)


@needs_choice
def test_small_pages_were_there_before() -> None:
    assert Memory().huge == 0


@needs_huge_pages
def test_what_was_there_before_or_is_hardly_filled_stays(asked: Asked) -> None:
    older = Memory()
    engine = EngineMemory()
    sparse = Memory(step=2)

    engine.use_huge_pages()

    assert not set(asked.blocks) & {*older.blocks, *sparse.blocks}
    sparse.fill()
    engine.use_huge_pages()
    assert set(sparse.blocks) <= set(asked.blocks)


@needs_huge_pages
@pytest.mark.parametrize("asked", [-1], indirect=True)
def test_a_system_without_a_page_to_give_is_not_asked_for_ever(asked: Asked) -> None:
    engine = EngineMemory()
    memories = [Memory() for _ in range(3)]

    assert engine.use_huge_pages() == 0
    assert len(asked.blocks) == 8 < sum(len(memory.blocks) for memory in memories)


@pytest.mark.parametrize("setting", ["always madvise [never]", None])
def test_settings_against_it_are_followed(
    setting: str | None, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting:
        (tmp_path / "enabled").write_text(setting)
        (tmp_path / "hpage_pmd_size").write_text("2097152")
    monkeypatch.setattr(huge_pages, "_SETTINGS", tmp_path)
    engine = EngineMemory()
    filled = np.ones(20 << 20, np.uint8)

    assert engine.use_huge_pages() == 0
    assert asked.blocks == []
    assert filled.all()


@needs_huge_pages
def test_where_the_process_cannot_see_its_memory_nothing_happens(asked: Asked, monkeypatch) -> None:
    monkeypatch.setattr(huge_pages, "_MAPPINGS", Path("/nowhere/maps"))
    engine = EngineMemory()
    memory = Memory()

    assert engine.use_huge_pages() == 0
    assert asked.blocks == []
    assert memory.bytes.any()


@pytest.fixture
def loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[EngineRunner, Memory]]:
    """A runner, and memory that its engine filled while it was loaded."""
    filled = []

    def load_backend(target: str, spec: EngineSpec) -> Backend:
        filled.append(Memory())
        return backend.load_backend(target, spec)

    monkeypatch.setattr(runner, "load_backend", load_backend)
    bundle = write_bundle(tmp_path / "tiny", "onnxruntime", tiny_model())
    with EngineRunner.load(bundle) as run:
        yield run, filled[0]


@needs_huge_pages
def test_a_runner_moves_its_engine_when_it_is_warmed_up_and_not_before(
    loaded: tuple[EngineRunner, Memory], asked: Asked
) -> None:
    run, memory = loaded
    pixels = run.prepare(np.zeros((8, 8, 3), np.uint8))
    before = run.infer(pixels)
    assert asked.blocks == []

    run.warmup()

    assert set(memory.blocks) <= set(asked.blocks)
    np.testing.assert_array_equal(run.infer(pixels), before)


@needs_huge_pages
def test_an_engine_on_another_device_stays_where_it_is(
    loaded: tuple[EngineRunner, Memory], asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = loaded
    monkeypatch.setattr(run, "device", "GPU")

    run.warmup()

    assert asked.blocks == []


@needs_huge_pages
def test_bench_warms_up_what_it_times(loaded: tuple[EngineRunner, Memory], asked: Asked) -> None:
    run, _ = loaded

    bench_models([run.bundle.path], runs=1, warmup=0)

    assert asked.blocks
