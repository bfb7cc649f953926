"""Stand-ins for the GPU-only packages that SGLang imports on every machine.

Loaded through a .pth file in the virtual environment of SGLang. Any attribute of a stand-in exists: a name that starts
with a capital is a class that accepts everything, any other name is a callable. Nothing here is ever reached by the CPU
path; whoever asks whether a package is installed (importlib.util.find_spec, transformers) is told that it is not.
"""

import importlib.abc
import importlib.machinery
import sys
import types

ABSENT = {
    "av",
    "cutlass",
    "decord",
    "deep_gemm",
    "easydict",
    "flashinfer",
    "mistral_common",
    "modelscope",
    "outlines",
    "py_spy",
    "quack",
    "sgl_kernel",
    "soundfile",
    "tilelang",
    "timm",
    "torch_memory_saver",
    "torchaudio",
    "torchvision",
}


class _Open(type):
    """Classes whose every public attribute exists."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return stand_in(name)


class _Anything(metaclass=_Open):
    """Can be built, called, subclassed and used as a decorator."""

    def __init__(self, *args, **kwargs):
        pass

    def __init_subclass__(cls, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        decorates = len(args) == 1 and not kwargs and callable(args[0])
        return args[0] if decorates else _Anything()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


def stand_in(name):
    """A class for a capitalised name, an object for any other."""
    return type(name, (_Anything,), {}) if name[:1].isupper() else _Anything()


class _Module(types.ModuleType):
    def __getattr__(self, name):
        if name == "__version__":
            return "0.0.0"
        if name.startswith("__"):
            raise AttributeError(name)
        value = stand_in(name)
        setattr(self, name, value)
        return value


def _only_asks():
    """Whether the import machinery was entered to learn if a package is there, not to use it."""
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if "importlib/util.py" in file or "<frozen importlib.util" in file or "/transformers/" in file:
            return True
        if "importlib" not in file:
            return False
        frame = frame.f_back
    return False


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):  # noqa: ARG002 - the import machinery names them
        if name.split(".")[0] not in ABSENT or _only_asks():
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = _Module(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module):
        pass


sys.meta_path.append(_Finder())
