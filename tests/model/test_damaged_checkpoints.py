"""Foreign bytes end in our errors, with the file's name, and take neither time nor memory."""

from __future__ import annotations

import io
import math
import random
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from effnet_edge.errors import CheckpointError
from effnet_edge.model.checkpoints.files import parse_checkpoint
from effnet_edge.model.checkpoints.fitting import fill
from effnet_edge.model.checkpoints.naming import NAMING_SCHEMES
from effnet_edge.model.checkpoints.timm_config import read_timm_config
from effnet_edge.model.network import EfficientNet
from effnet_edge.model.variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Callable

TENSORS = {"a": torch.arange(5000.0), "b": torch.ones(300)}


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


ZIP, STREAM = saved(TENSORS), saved(TENSORS, _use_new_zipfile_serialization=False)


def rewritten(
    change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED
) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(ZIP)) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target.getvalue()


def with_pickle(pickle: bytes) -> bytes:
    return rewritten(lambda name, data: pickle if name.endswith("data.pkl") else data)


def tensors_of(data: bytes) -> dict[str, torch.Tensor]:
    return parse_checkpoint("x.pth", data).tensors


@pytest.mark.parametrize("data", [ZIP, STREAM], ids=["zip", "stream"])
def test_both_of_pytorchs_layouts_are_read(data: bytes) -> None:
    found = tensors_of(data)

    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


def test_views_of_one_storage_and_every_number_format_are_read() -> None:
    base = torch.arange(24.0).reshape(4, 6)
    content = {
        "turned": base.t(),
        "part": base[1:3, ::2],
        "scalar": torch.tensor(3.0),
        "none": torch.empty(0, 4),
        "half": base.half(),
        "brain": base.bfloat16(),
        "eighth": base.to(torch.float8_e4m3fn),
        "whole": torch.arange(3),
        "parameter": torch.nn.Parameter(base),
    }

    found = tensors_of(saved(content))

    for name, tensor in content.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name].float(), tensor.float()), name


def test_no_flipped_bit_in_a_zip_gives_other_weights() -> None:
    wrong = 0
    for seed in range(300):
        chance, data = random.Random(seed), bytearray(ZIP)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            found = tensors_of(bytes(data))
        except CheckpointError:
            continue
        wrong += found.keys() != TENSORS.keys()
        wrong += any(not torch.equal(each, TENSORS[name]) for name, each in found.items())
    assert wrong == 0


def test_a_dictionary_that_holds_itself_has_an_end() -> None:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    with pytest.raises(CheckpointError, match=r"x.pth is not a state dict"):
        tensors_of(saved(content))

    content["model"] = {"a": torch.ones(3), "up": content}
    assert tensors_of(saved(content)).keys() == {"model.a"}


def test_a_compressed_archive_is_not_unpacked() -> None:
    with pytest.raises(CheckpointError, match=r"x.pth was compressed after PyTorch wrote it"):
        tensors_of(rewritten(lambda _, data: data, zipfile.ZIP_DEFLATED))


def test_a_tensor_larger_than_its_storage_is_refused() -> None:
    larger = b"\x8a\x04" + (10**9).to_bytes(4, "little")
    pickle = zipfile.ZipFile(io.BytesIO(ZIP)).read("archive/data.pkl")
    with pytest.raises(CheckpointError, match=r"x.pth is truncated or damaged"):
        tensors_of(with_pickle(pickle.replace(b"M\x88\x13", larger)))


def test_an_expanded_tensor_is_not_filled() -> None:
    entries = parse_checkpoint("x.pth", saved({"a": torch.ones(1).expand(10**9)})).groups[""]
    assert "expanded view" in entries["a"].fault


ARGUMENTS = b"(X\x01\0\0\0xt"


@pytest.mark.parametrize(
    "pickle",
    [
        b"\x80\x02R.",
        b"\x80\x02X\x01",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + ARGUMENTS + b"R.",
        b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n" + ARGUMENTS + b"Rs.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02}r\xff\xff\xff\xff.",
        b"\x80\x02" + b"(" * 100_000 + b".",
        b"\x80\x02)" + b"\x85" * 100_000 + b".",
        b"\x80\x02)" + b"q\x002h\x00\x86" * 60 + b"}h\x00K\x01s.",
        b"\x80\x02" + b"(lp0\n" + b"0" * 10 + b".",
        b"",
    ],
)
def test_wrong_pickles_are_told_by_the_files_name(pickle: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        tensors_of(with_pickle(pickle))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_end_in_our_error_or_in_tensors(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([ZIP[:3000], STREAM, save(TENSORS), b"PK", b"\x80\x02"]))
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, min(len(changed), 1200)))
        changed[position : position + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=4)
        )
    with suppress(CheckpointError):
        tensors_of(bytes(changed))


def test_a_zip_of_an_unknown_version_is_told() -> None:
    data = bytearray(ZIP)
    data[data.find(b"PK\1\2") + 6] = 127
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        tensors_of(bytes(data))


class Doubler(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(Doubler(), torch.zeros(1)), buffer)
    return buffer.getvalue()


def program() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Doubler(), (torch.zeros(1),)), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (script, "is a TorchScript program.*torch.jit.load"),
        (program, "is an exported program.*torch.export.load"),
        (
            lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "is what Git LFS has in the place of the checkpoint: git lfs pull",
        ),
        (lambda: saved(torch.nn.Linear(2, 2)), "is not a state dict.*but a torch.nn.*Linear"),
        (
            lambda: saved(torch.nn.Linear(2, 2), _use_new_zipfile_serialization=False),
            r"is not a state dict \(tensors by name\), and Python objects",
        ),
        (lambda: rewritten(lambda *_: b"").replace(b"data.pkl", b"data.txt"), "is a zip archive"),
    ],
)
def test_sound_files_of_another_kind_are_told_what_they_are(make, told: str) -> None:
    with pytest.raises(CheckpointError, match=f"x.pth {told}") as caught:
        tensors_of(make())
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.ones(3, 3).to_sparse(), "is sparse: save it with .to_dense"),
        (torch.ones(3, 3).to_sparse_csr(), "is sparse"),
        (torch.empty(3, device="meta"), "has no values"),
        (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "is quantized"),
    ],
    ids=["sparse", "csr", "meta", "quantized"],
)
def test_tensors_of_another_kind_are_told_what_they_are(tensor, told: str) -> None:
    assert told in parse_checkpoint("x.pth", saved({"a": tensor})).groups[""]["a"].fault


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda each: each.to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (lambda each: each.to_sparse(), "sparse_coo, float32"),
        (lambda each: each.to("meta"), "on the meta device"),
        (lambda each: each.to(torch.int8), "int8"),
        (lambda each: each.to(torch.complex64), "complex64"),
        (lambda each: torch.quantize_per_tensor(each, 0.1, 0, torch.qint8), "qint8"),
    ],
)
def test_weights_that_are_no_plain_numbers_are_refused_by_name(change, told: str) -> None:
    network = EfficientNet(VARIANTS["b0"], num_classes=5, resolution=32)
    state = network.tensors()
    state["stem.conv.weight"] = change(state["stem.conv.weight"])

    with pytest.raises(CheckpointError, match=f"x.pth: tensor stem.conv.weight is .*{told}"):
        fill(network, state, NAMING_SCHEMES[0], "x.pth")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("head.bn.running_var", -0.5, "holds -0.5, and no variance is below 0"),
        ("head.bn.running_var", -1e-5, "holds -1e-05, and no variance is below 0"),
        ("head.bn.running_var", 1e300, r"holds 1e\+300, more than float32 can"),
        ("head.conv.weight", -1e39, r"holds 1e\+39, more than float32 can"),
        ("head.conv.weight", -math.inf, "holds NaN or infinity"),
        ("head.bn.running_var", math.nan, "holds NaN or infinity"),
    ],
)
def test_values_that_no_network_has_are_refused_by_name(name: str, value: float, told: str) -> None:
    network = EfficientNet(VARIANTS["b0"], num_classes=5, resolution=32)
    state = network.tensors()
    state[name] = state[name].double()
    state[name].view(-1)[1] = value

    with pytest.raises(CheckpointError, match=f"x.pth: tensor {name} {told}"):
        fill(network, state, NAMING_SCHEMES[0], "x.pth")


def test_values_that_some_training_gives_are_taken() -> None:
    network = EfficientNet(VARIANTS["b0"], num_classes=5, resolution=32)
    state = {name: each.clone() for name, each in network.tensors().items()}
    state["head.bn.running_var"][:3] = torch.tensor([0.0, -0.0, 1e-42])
    state["head.bn.weight"][:2] = torch.tensor([-1.0, 1e-42])
    state["head.bn.running_mean"][0] = -7.0

    fill(network, state, NAMING_SCHEMES[0], "x.pth")

    assert all(torch.equal(each, state[name]) for name, each in network.tensors().items())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"architecture": "tf_x", "input_size": [3, 1e400]}', "not as timm writes it"),
        ('{"architecture": "tf_x", "input_size": {"a": 1}}', "not as timm writes it"),
    ],
)
def test_a_wrong_config_beside_the_checkpoint_is_told(tmp_path, text: str, told: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=told):
        read_timm_config(tmp_path / "model.pth")


def test_a_config_without_an_end_is_not_timms(tmp_path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert read_timm_config(tmp_path / "model.pth") is None


def test_a_class_that_cannot_be_seen_is_told_in_escapes() -> None:
    torn = STREAM.replace(b"FloatStorage", b"Flo\x19tStorage")
    with pytest.raises(CheckpointError, match=r"a torch\.Flo\\x19tStorage: convert it to float32"):
        parse_checkpoint("model.pth", torn)
