"""Which cards a torch runs on, the sentences about them, and the computer's memory and processor."""

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from anyrig.backend.errors import UserError
from anyrig.backend.hardware import devices, system_info
from anyrig.backend.hardware.devices import Gpu, Torch, describe_gpu, findings, match_gpu

GB = 2**30
TORCH_213 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
TORCH_25 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")


@pytest.mark.parametrize(
    ("arch", "archs", "expected"),
    [
        ("sm_86", TORCH_213, "built in"),
        ("sm_89", TORCH_213, "built in"),  # a later minor number of a generation that is there
        ("sm_103", TORCH_213, "built in"),
        ("sm_121", TORCH_213, "built in"),
        ("sm_130", TORCH_213, "compiled"),  # from compute_120
        ("sm_61", TORCH_213, "older"),
        ("sm_120", TORCH_25, "newer"),
        ("sm_100", TORCH_25, "newer"),
        ("sm_37", TORCH_25, "older"),
        ("sm_80", ("sm_86", "sm_75"), "left out"),  # code of a later minor number does not run
        ("sm_87", ("sm_80", "sm_86", "sm_90"), "left out"),  # Jetson
        ("sm_87", ("sm_80", "sm_87"), "built in"),
        ("sm_89", ("sm_87",), "newer"),
        ("sm_87", ("sm_90", "compute_80"), "compiled"),
        ("sm_90", ("sm_90a",), "built in"),
        ("sm_100", ("sm_90a", "compute_90a"), "newer"),  # this chip alone, PTX too
        ("sm_103", ("sm_100f",), "built in"),
        ("sm_120", ("compute_100f",), "newer"),  # its family alone
        ("sm_103", ("compute_100f",), "compiled"),
        ("sm_75", (), "left out"),
        ("gfx1100", ("gfx900", "gfx1100"), "built in"),
        ("gfx1032", ("gfx900", "gfx1100"), "left out"),
        ("gfx90a", ("gfx900", "gfx90a:xnack-"), "built in"),
    ],
)
def test_which_cards_a_torch_runs_on(arch: str, archs: tuple[str, ...], expected: str):
    assert match_gpu(arch, archs) == expected


def test_the_rules_for_machine_code_are_those_of_torch():
    known = [cc for cc in torch.cuda.DEVICE_REQUIREMENT if cc != 101]  # Thor, which CUDA 13 calls 110
    for code in known:
        for card in known:
            ours = match_gpu(f"sm_{card}", (f"sm_{code}",)) == "built in"
            assert ours == torch.cuda._code_compatible_with_device(card, code), (card, code)


BLACKWELL = Gpu("NVIDIA GeForce RTX 5090", "sm_120", 32 * GB)
PASCAL = Gpu("NVIDIA GeForce GTX 1080", "sm_61", 8 * GB)
ADA = Gpu("NVIDIA GeForce RTX 4090", "sm_89", 24 * GB)


def test_a_card_that_is_too_new():
    text, good = describe_gpu(BLACKWELL, Torch("2.5.1", "CUDA 12.4", TORCH_25))
    assert not good and text == (
        "This GPU (NVIDIA GeForce RTX 5090, sm_120) is newer than what PyTorch 2.5.1 was built for (up to sm_90): "
        "install an AnyRig zip with a PyTorch made for sm_120, or set Device to CPU."
    )


def test_a_card_that_is_too_old():
    text, good = describe_gpu(PASCAL, Torch("2.13.0", "CUDA 13.0", TORCH_213))
    assert not good and "(NVIDIA GeForce GTX 1080, sm_61) is older than what PyTorch 2.13.0 was built for (from sm_75 on)" in text


def test_a_card_between_those_that_torch_was_built_for():
    orin = Gpu("Orin", "sm_87", 30 * GB)
    text, good = describe_gpu(orin, Torch("2.13.0", "CUDA 13.0", TORCH_213))
    assert not good and f"is not among those that PyTorch 2.13.0 was built for ({', '.join(TORCH_213)})" in text


def test_a_card_that_fits_and_one_whose_code_the_driver_makes():
    found = Torch("2.13.0", "CUDA 13.0", TORCH_213)
    text = "This GPU (NVIDIA GeForce RTX 4090, sm_89, 24.0 GB) works with PyTorch 2.13.0 (CUDA 13.0)."
    assert describe_gpu(ADA, found) == (text, True)
    text, good = describe_gpu(Gpu("Rubin", "sm_130", GB), found)
    assert good and "the driver can compile it: the first capture starts late" in text


def test_an_arch_list_that_says_nothing_forbids_nothing():
    assert describe_gpu(ADA, Torch("2.13.0", "CUDA 13.0")).good


def test_amd_cards_are_told_by_name():
    card = Gpu("AMD Radeon RX 6600", "gfx1032", 8 * GB)
    text, good = describe_gpu(card, Torch("2.9.0", "ROCm 6.4", ("gfx900", "gfx1030")))
    assert (
        not good and "(AMD Radeon RX 6600, gfx1032) is not among those that PyTorch 2.9.0 was built for (gfx900, gfx1030)" in text
    )


def test_without_cards_the_reason_is_told():
    [(text, good)] = findings(Torch("2.13.0+cpu"))
    assert good and text == "PyTorch 2.13.0+cpu is made for the processor alone, where captures run."
    [(text, good)] = findings(Torch("2.13.0+cpu"), "NVIDIA Corporation NVIDIA GeForce RTX 4090/PCIe/SSE2")
    assert not good and text.endswith(
        "to use NVIDIA Corporation NVIDIA GeForce RTX 4090/PCIe/SSE2, install the AnyRig zip whose name ends in cuda."
    )
    [(text, good)] = findings(Torch("2.13.0", "CUDA 13.0", TORCH_213, warning="The NVIDIA driver on your system is too old"))
    assert not good and text == (
        "PyTorch 2.13.0 is made for CUDA 13.0 but sees no graphics card (The NVIDIA driver on your system is too old): "
        "update the card's driver, or set Device to CPU."
    )
    assert findings(Torch("2.13.0", "Metal", metal=True))[0].good
    assert "update macOS" in findings(Torch("2.13.0", "Metal"))[0].text


def test_every_card_is_told_but_the_first_decides():
    found = Torch("2.13.0", "CUDA 13.0", TORCH_213, (PASCAL, ADA))
    assert [finding.good for finding in findings(found)] == [False, True]
    assert "GTX 1080" in devices.device_obstacle(found)
    assert devices.device_obstacle(Torch("2.13.0", "CUDA 13.0", TORCH_213, (ADA, PASCAL))) == ""


# ---- asking the torch that is here, and one with made-up cards


class Properties:
    name, total_memory, major, minor = "NVIDIA GeForce RTX 5090", 32 * GB, 12, 0
    gcnArchName = "NVIDIA GeForce RTX 5090"  # as torch has it for NVIDIA's cards


@pytest.fixture
def blackwell(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A torch for CUDA with a card that is newer than it."""
    for name, value in {"is_available": True, "device_count": 1, "get_arch_list": list(TORCH_25)}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    return monkeypatch


def test_looking_reads_the_cards_of_torch(blackwell: pytest.MonkeyPatch):
    assert devices.look_up_devices() == Torch(torch.__version__, "CUDA 12.4", TORCH_25, (BLACKWELL,))


def test_looking_at_amd_reads_the_name_without_features(blackwell: pytest.MonkeyPatch):
    blackwell.setattr(torch.version, "hip", "6.4")
    blackwell.setattr(Properties, "gcnArchName", "gfx90a:sramecc+:xnack-")
    found = devices.look_up_devices()
    assert (found.toolkit, found.gpus[0].arch) == ("ROCm 6.4", "gfx90a")


def test_torch_s_reason_for_seeing_no_card_is_kept(blackwell: pytest.MonkeyPatch):
    def old_driver() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver is too old.\nUpdate it.", stacklevel=1)
        return False

    blackwell.setattr(torch.cuda, "is_available", old_driver)
    assert devices.look_up_devices().warning == "CUDA initialization: The NVIDIA driver is too old"

    def lost(index: int) -> Any:
        raise RuntimeError("CUDA driver initialization failed\nmore")

    blackwell.setattr(torch.cuda, "is_available", lambda: True)
    blackwell.setattr(torch.cuda, "get_device_properties", lost)
    found = devices.look_up_devices()
    assert not found.gpus and found.warning == "CUDA driver initialization failed" and devices.device_obstacle(found)


def test_a_card_that_torch_was_not_built_for_is_refused_and_auto_takes_the_processor(blackwell: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=r"This GPU .* is newer than what PyTorch .* \(up to sm_90\)"):
        devices.pick_device("cuda")
    assert devices.pick_device("auto") == torch.device("cpu")
    blackwell.setattr(torch.cuda, "get_arch_list", lambda: list(TORCH_213))
    assert devices.pick_device("auto") == devices.pick_device("cuda") == torch.device("cuda")


def test_a_torch_that_is_missing_or_broken_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="PyTorch is missing .*: install the AnyRig zip made for this system"):
        devices.look_up_devices()


def test_a_broken_library_of_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "torch.py").write_text("raise OSError('[WinError 126] c10.dll.\\nmore')")
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"does not load \(\[WinError 126\] c10\.dll\): install"):
        devices.look_up_devices()


def test_a_first_computation_is_tried():
    assert devices.try_device("cpu") == ""
    if not torch.cuda.is_available():
        assert devices.try_device("cuda") == "Torch not compiled with CUDA enabled" or "driver" in devices.try_device("cuda")
    assert "meta" in devices.try_device("meta")
    assert devices.free_memory("cpu") is None


# ---- the computer


def test_memory_is_read_from_the_system(tmp_path: Path):
    total, free = system_info.memory()
    assert total is not None and total > GB / 4
    if sys.platform == "linux":
        assert free is not None and 0 < free <= total
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\nHugePages_Total:       0\n")
    assert system_info.available(meminfo) == 8_000_000 * 1024
    meminfo.write_text("MemTotal:       16000000 kB\n")
    assert system_info.available(meminfo) is None and system_info.available(tmp_path / "none") is None


def test_the_processor_has_a_name_and_threads(tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Made Up 9000\n")
    assert system_info.processor(cpuinfo).startswith("Made Up 9000, ") and system_info.processor(cpuinfo).endswith(" threads")
    assert system_info.processor(tmp_path / "none")
