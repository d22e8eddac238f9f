"""Reads this computer's memory and processor from the operating system."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path


def memory() -> tuple[int | None, int | None]:
    """Bytes of main memory, and bytes that are still available; None where the system does not tell."""
    if sys.platform == "win32":
        return _windows_memory()
    return _total_memory(), available(Path("/proc/meminfo"))


def _total_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def available(meminfo: Path) -> int | None:
    """Bytes that are free or can be freed, from Linux's /proc/meminfo; None if they are not in it."""
    try:
        lines = meminfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    values = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    found = values.get("MemAvailable", [])
    return int(found[0]) * 1024 if found else None


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)] + [
        (name, ctypes.c_uint64) for name in ("total", "available", "page", "page_free", "virtual", "virtual_free", "extended")
    ]


def _windows_memory() -> tuple[int | None, int | None]:
    status = _MemoryStatus()
    status.length = ctypes.sizeof(status)
    if sys.platform != "win32" or not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None, None
    return status.total, status.available


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name and its number of threads, as text."""
    name = platform.processor() or platform.machine()
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count() or 1} threads"
