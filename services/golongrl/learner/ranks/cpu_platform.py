"""verl's missing CPU platform: lets verl's FSDP engine run where there is no accelerator.

Loaded by verl itself through the entry point group `verl.plugins`. It is inert on a machine with a GPU or NPU: verl
probes its own platforms first, and this one answers "not available" as soon as an accelerator is visible.
"""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


class _CpuDevice(str):
    """The device "cpu" for tensor.to(), and "0" inside an f-string, where verl wants an index."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return format("0", spec)


class _CpuModule(ModuleType):
    """torch.cpu plus what verl asks any device module for: memory (the process's resident memory) and random state."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def max_memory_allocated(self, *_: Any) -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    memory_allocated = memory_reserved = max_memory_reserved = max_memory_allocated

    def mem_get_info(self, *_: Any) -> tuple[int, int]:
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")

    def get_rng_state(self, *_: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, *_: Any) -> None:
        torch.set_rng_state(state)

    def empty_cache(self) -> None:
        pass

    def reset_peak_memory_stats(self, *_: Any) -> None:
        pass


class PlatformCPU(PlatformBase):  # type: ignore[misc]  # verl carries no types for it
    """A single CPU "device", collectives by gloo; profiling and allocator calls do nothing."""

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> ModuleType:
        return _CpuModule("torch.cpu")

    def is_available(self) -> bool:
        return not (torch.cuda.is_available() or (hasattr(torch, "npu") and torch.npu.is_available()))

    def current_device(self) -> Any:
        # verl both passes this to tensor.to(), where an int would mean cuda:0, and formats f"{name}:{device}".
        return _CpuDevice("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        del device_index
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "GOLONGRL_CPU_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        del msg
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "CPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def ray_resource_options(self, num_gpus: float) -> dict[str, Any]:
        return {"num_cpus": num_gpus}

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> Any:
        return None


def register() -> None:
    """Offer the platform to verl. verl only loads entry points, so importing this module is what registers it."""
    if PlatformRegistry.get("cpu") is None:
        PlatformRegistry.register(platform="cpu")(PlatformCPU)


register()
